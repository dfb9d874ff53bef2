/** The benchmark, and the profile document that it gives: export/profile-2.0.schema.json. */

import { inputOf } from "./answers";
import type { Session } from "./engine";
import { SepViTError } from "./errors";
import { inputSize } from "./manifest";
import type { Package } from "./package";
import { bytes, goldenImage, type SelfCheck, selfCheck } from "./selfcheck";
import { type Latency, latency, percentile, rounded } from "./statistics";

export const PROFILE_SCHEMA_VERSION = "2.0";
const PREPROCESSING_RUNS = 30;
/** Times are stable when the medians of two consecutive windows differ by less than this share. */
const STABLE_WINDOW = 5;
const STABLE_SHARE = 0.05;
const SUSTAINED_POINTS = 60;
const SHORTEST_POINT_S = 1;

export interface BenchmarkOptions {
  /** Maximum number of runs before the timed ones; fewer if times become stable earlier. */
  warmUp: number;
  runs: number;
  /** Duration of the sustained run after the timed runs, in seconds; 0 for none. */
  sustainedS: number;
}

export interface Progress {
  step: "checking" | "warming up" | "timing" | "preprocessing" | "sustained" | "starting";
  done: number;
  total: number;
}

export interface SustainedPoint {
  time_s: number;
  runs: number;
  p50_ms: number;
  p90_ms: number;
  max_ms: number;
}

export interface Measurements {
  golden: SelfCheck;
  warmUpRuns: number;
  warmUpStable: boolean;
  clockResolutionNs: number | null;
  latency: Latency;
  preprocessing: Latency;
  sustained: { requested_s: number; points: SustainedPoint[] } | null;
}

/**
 * Time a loaded package on its golden pixels.
 *
 * @param report Called with the progress. The benchmark waits for its promise.
 * @param stop Checked between runs.
 * @throws SepViTError if the self-check fails: wrong answers are not timed.
 */
export async function measure(
  session: Session,
  options: BenchmarkOptions,
  report: (progress: Progress) => Promise<void> = async () => {},
  stop: () => boolean = () => false,
): Promise<Measurements> {
  await report({ step: "checking", done: 0, total: 1 });
  const golden = await selfCheck(session);
  if (!golden.passed) {
    throw new SepViTError(
      `the self-check fails at the ${golden.failsAt}, so nothing is timed; see the self-check`,
    );
  }
  const tensors = session.pack.golden();
  const { manifest } = session.pack;
  const { width, height } = inputSize(manifest);
  const pixelsEach = width * height * 3;
  const pixels = bytes(tensors, "pixels").data.subarray(0, pixelsEach);
  const timed = async () => {
    const start = performance.now();
    await session.run(pixels);
    return performance.now() - start;
  };

  const warm: number[] = [];
  while (warm.length < options.warmUp && !isStable(warm)) {
    warm.push(await timed());
    await report({ step: "warming up", done: warm.length, total: options.warmUp });
    if (stop()) throw stopped();
  }

  const runs: number[] = [];
  while (runs.length < options.runs) {
    runs.push(await timed());
    await report({ step: "timing", done: runs.length, total: options.runs });
    if (stop()) throw stopped();
  }

  await report({ step: "preprocessing", done: 0, total: 1 });
  // Image 2 is the one of 320 x 240 in exported packages.
  const image = goldenImage(tensors, Math.min(2, golden.images - 1));
  const resizing: number[] = [];
  for (let i = 0; i < PREPROCESSING_RUNS; i++) {
    const start = performance.now();
    inputOf(image, manifest);
    resizing.push(performance.now() - start);
  }

  return {
    golden,
    warmUpRuns: warm.length,
    warmUpStable: isStable(warm),
    clockResolutionNs: clockResolutionNs(),
    latency: latency(runs),
    preprocessing: latency(resizing),
    sustained:
      options.sustainedS > 0 ? await sustain(timed, options.sustainedS, report, stop) : null,
  };
}

async function sustain(
  timed: () => Promise<number>,
  seconds: number,
  report: (progress: Progress) => Promise<void>,
  stop: () => boolean,
) {
  const points: SustainedPoint[] = [];
  const piece = Math.max(seconds / SUSTAINED_POINTS, SHORTEST_POINT_S);
  const start = performance.now();
  let times: number[] = [];
  let elapsed = 0;
  // Stopping ends the run early; the document keeps its results.
  while (elapsed < seconds && !stop()) {
    times.push(await timed());
    elapsed = (performance.now() - start) / 1000;
    if (elapsed >= piece * (points.length + 1) || elapsed >= seconds) {
      points.push({
        time_s: rounded(elapsed),
        runs: times.length,
        p50_ms: rounded(percentile(times, 50)),
        p90_ms: rounded(percentile(times, 90)),
        max_ms: rounded(percentile(times, 100)),
      });
      times = [];
      await report({ step: "sustained", done: Math.min(elapsed, seconds), total: seconds });
    }
  }
  return { requested_s: seconds, points };
}

function stopped(): SepViTError {
  return new SepViTError("the benchmark was stopped; run it again for a result");
}

function isStable(times: readonly number[]): boolean {
  if (times.length < 2 * STABLE_WINDOW) return false;
  const last = percentile(times.slice(-STABLE_WINDOW), 50);
  const before = percentile(times.slice(-2 * STABLE_WINDOW, -STABLE_WINDOW), 50);
  return Math.abs(last - before) <= STABLE_SHARE * before;
}

/** Return the smallest difference between two readings of the clock. */
function clockResolutionNs(): number | null {
  let smallest = Number.POSITIVE_INFINITY;
  const end = performance.now() + 20;
  for (let last = performance.now(); last < end; ) {
    const now = performance.now();
    if (now > last) smallest = Math.min(smallest, now - last);
    last = now;
  }
  return Number.isFinite(smallest) ? Math.round(smallest * 1e6) : null;
}

export interface ColdStart {
  starts: number;
  total_ms: number;
  import_ms: number | null;
  load_ms: number;
  first_run_ms: number;
  file_cache: "dropped" | "warm" | "unknown";
}

/** The device's properties; null if the system does not report one. */
export interface Device {
  name: string;
  model: string | null;
  architecture: string | null;
  os: string | null;
  os_version: string | null;
  browser: string | null;
  logical_cores: number | null;
}

export interface Conditions {
  battery_percent: number | null;
  charging: boolean | null;
}

export interface RuntimeUsed {
  name: string;
  version: string;
  execution: string;
  threads: number | null;
  settings: Record<string, string>;
}

/** Put measurements into the profile document. */
export function profileDocument(facts: {
  appVersion: string;
  pack: Package;
  runtime: RuntimeUsed;
  device: Device;
  measured: Measurements;
  coldStart: ColdStart;
  before: Conditions | null;
  after: Conditions | null;
  notMeasured: { what: string; reason: string }[];
}) {
  const { pack, measured } = facts;
  const { manifest } = pack;
  const { golden } = measured;
  return {
    schema_version: PROFILE_SCHEMA_VERSION,
    complete: true,
    incomplete_reason: null,
    emulated: false,
    producer: { name: "web-app", version: facts.appVersion },
    package: {
      digest: manifest.digest,
      variant: manifest.model.variant,
      target: manifest.target,
      precision: manifest.precision,
      image_size: manifest.model.image_size,
      num_classes: manifest.model.num_classes,
      batch: manifest.input.shape[0],
      model_mb: pack.size / 1e6,
      macs: manifest.model.macs,
    },
    runtime: facts.runtime,
    device: facts.device,
    golden: {
      images: golden.images,
      sqnr_db: golden.maxAbsError === 0 ? null : golden.sqnrDb,
      minimum_sqnr_db: golden.minimumSqnrDb,
      max_abs_error: golden.maxAbsError,
      top1_agreement: golden.agreement,
      preprocessing_identical: golden.pixelDifferences.length === 0,
      passed: golden.passed,
    },
    method: {
      clock: "performance.now",
      clock_resolution_ns: measured.clockResolutionNs,
      warmup_runs: measured.warmUpRuns,
      warmup_stable: measured.warmUpStable,
      cores: null,
      start_temperature_limit_c: null,
    },
    before: facts.before,
    after: facts.after,
    cold_start: facts.coldStart,
    latency: measured.latency,
    preprocessing: measured.preprocessing,
    memory: null,
    energy: null,
    sustained: measured.sustained,
    operations: null,
    roofs: null,
    attribution: null,
    not_measured: facts.notMeasured,
  };
}

export type ProfileDocument = ReturnType<typeof profileDocument>;
