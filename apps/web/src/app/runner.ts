/** The page's side of the worker. */

import * as Comlink from "comlink";
import { type ColdStart, type Progress, profileDocument } from "../core/benchmark";
import { sentence } from "../core/errors";
import { percentile, rounded } from "../core/statistics";
import { conditions, device, notMeasured } from "./device";
import type { EngineSettings } from "./engine";
import { openPackage, type PackageEntry } from "./packages";
import type { Opened, WorkerApi } from "./worker";

declare const APP_VERSION: string;
const COLD_STARTS = 3;

/** A package that is open in a separate worker. */
export class Runner {
  private constructor(
    private readonly worker: Worker,
    readonly api: Comlink.Remote<WorkerApi>,
    readonly entry: PackageEntry,
    readonly opened: Opened,
  ) {}

  /** Start a worker and open a package in it. */
  static async open(entry: PackageEntry, settings: EngineSettings): Promise<Runner> {
    const worker = new Worker(new URL("./worker.ts", import.meta.url), { type: "module" });
    // A worker whose file cannot be loaded never answers.
    const failure = new Promise<never>((_, reject) => {
      worker.onerror = (event) => reject(new Error(event.message || "the worker cannot start"));
    });
    const api = Comlink.wrap<WorkerApi>(worker);
    try {
      const opened = await Promise.race([api.open(entry, settings), failure]);
      return new Runner(worker, api, entry, opened);
    } catch (error) {
      worker.terminate();
      throw error;
    }
  }

  close(): void {
    this.worker.terminate();
  }
}

export interface BenchmarkSettings extends EngineSettings {
  warmUp: number;
  runs: number;
  sustainedS: number;
}

/** A running benchmark. */
export interface Benchmark {
  result: Promise<ReturnType<typeof profileDocument>>;
  /** End the sustained run early, or cancel the benchmark before it. */
  stop(): void;
}

/** Measure a package: cold starts, then warm runs. */
export function benchmark(
  entry: PackageEntry,
  settings: BenchmarkSettings,
  report: (progress: Progress) => void,
): Benchmark {
  let runner: Runner | undefined;
  let stopped = false;
  const run = async () => {
    const before = await conditions();
    const starts: { total: number; load: number; first: number }[] = [];
    for (let i = 0; i < COLD_STARTS && !stopped; i++) {
      report({ step: "starting", done: i, total: COLD_STARTS });
      runner?.close();
      const start = performance.now();
      runner = await Runner.open(entry, settings);
      const first = await runner.api.runOnce();
      starts.push({ total: performance.now() - start, load: runner.opened.loadMs, first });
    }
    if (!runner || stopped) throw new Error("the benchmark was stopped; run it again for a result");
    const measured = await runner.api.measure(settings, Comlink.proxy(report));
    const median = (values: number[]) => rounded(percentile(values, 50));
    const coldStart: ColdStart = {
      starts: starts.length,
      total_ms: median(starts.map(({ total }) => total)),
      import_ms: null,
      load_ms: median(starts.map(({ load }) => load)),
      first_run_ms: median(starts.map(({ first }) => first)),
      file_cache: "warm",
    };
    return profileDocument({
      appVersion: APP_VERSION,
      pack: await openPackage(entry),
      runtime: { ...runner.opened.runtime, settings: { graph_optimization_level: "all" } },
      device: await device(),
      measured,
      coldStart,
      before,
      after: await conditions(),
      notMeasured,
    });
  };
  return {
    result: run().finally(() => runner?.close()),
    stop: () => {
      stopped = true;
      runner?.api.stop().catch((error: unknown) => console.warn(sentence(error)));
    },
  };
}
