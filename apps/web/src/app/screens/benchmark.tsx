/** The benchmark screen: times the package on this device and shares the profile document. */

import { useEffect, useRef, useState } from "preact/hooks";
import type { ProfileDocument, Progress } from "../../core/benchmark";
import { sentence } from "../../core/errors";
import { Facts, Figure, Icon, milliseconds, Notice } from "../components";
import {
  type BenchmarkSettings,
  benchmark,
  type Runner,
  type Benchmark as Running,
} from "../runner";

const DEFAULTS: BenchmarkSettings = {
  execution: "wasm",
  threads: 1,
  warmUp: 50,
  runs: 100,
  sustainedS: 0,
};

/**
 * A benchmark that the address requests, which starts by itself:
 * `?benchmark=NAME&runs=100&warm_up=50&threads=1&sustained=0&execution=wasm`.
 */
export function requestedBenchmark(): ({ name: string } & BenchmarkSettings) | null {
  const query = new URLSearchParams(location.search);
  const name = query.get("benchmark");
  if (name === null) return null;
  const number = (key: string, fallback: number) => {
    const value = Number.parseInt(query.get(key) ?? "", 10);
    return Number.isNaN(value) ? fallback : value;
  };
  return {
    name,
    execution: query.get("execution") === "webgpu" ? "webgpu" : "wasm",
    threads: clamp(number("threads", DEFAULTS.threads), 1, mostThreads()),
    warmUp: clamp(number("warm_up", DEFAULTS.warmUp), 0, 1000),
    runs: clamp(number("runs", DEFAULTS.runs), 1, 100_000),
    sustainedS: clamp(number("sustained", DEFAULTS.sustainedS), 0, 7200),
  };
}

function clamp(value: number, low: number, high: number): number {
  return Math.min(Math.max(value, low), high);
}

function mostThreads(): number {
  return crossOriginIsolated ? navigator.hardwareConcurrency : 1;
}

export function Benchmark({ runner }: { runner: Runner }) {
  const [settings, setSettings] = useState<BenchmarkSettings>(requestedBenchmark() ?? DEFAULTS);
  const [progress, setProgress] = useState<Progress | null>(null);
  const [document, setDocument] = useState<ProfileDocument | null>(null);
  const [message, setMessage] = useState<string | null>(null);
  const running = useRef<Running | null>(null);

  const start = async () => {
    setDocument(null);
    setMessage(null);
    setProgress({ step: "starting", done: 0, total: 1 });
    const lock = await navigator.wakeLock?.request("screen").catch(() => undefined);
    running.current = benchmark(runner.entry, settings, setProgress);
    try {
      setDocument(await running.current.result);
    } catch (error) {
      setMessage(sentence(error));
    } finally {
      running.current = null;
      setProgress(null);
      await lock?.release();
    }
  };

  useEffect(() => {
    if (requestedBenchmark()?.name === runner.entry.name) start();
    return () => running.current?.stop();
  }, []);

  const set = (change: Partial<BenchmarkSettings>) => setSettings({ ...settings, ...change });
  return (
    <>
      <form
        class="card settings"
        onSubmit={(event) => {
          event.preventDefault();
          start();
        }}
      >
        <fieldset disabled={progress !== null}>
          <legend class="visually-hidden">Settings</legend>
          <label>
            Runs on
            <select
              value={settings.execution}
              onChange={(event) =>
                set({ execution: event.currentTarget.value === "webgpu" ? "webgpu" : "wasm" })
              }
            >
              <option value="wasm">CPU, WebAssembly</option>
              <option value="webgpu" disabled={!("gpu" in navigator)}>
                GPU, WebGPU{"gpu" in navigator ? "" : " (not in this browser)"}
              </option>
            </select>
          </label>
          <NumberField
            name="Threads"
            value={settings.threads}
            low={1}
            high={mostThreads()}
            disabled={settings.execution === "webgpu"}
            onChange={(threads) => set({ threads })}
          />
          <NumberField
            name="Warm-up, at most"
            value={settings.warmUp}
            low={0}
            high={1000}
            onChange={(warmUp) => set({ warmUp })}
          />
          <NumberField
            name="Runs"
            value={settings.runs}
            low={1}
            high={100_000}
            onChange={(runs) => set({ runs })}
          />
          <NumberField
            name="Sustained, seconds"
            value={settings.sustainedS}
            low={0}
            high={7200}
            onChange={(sustainedS) => set({ sustainedS })}
          />
        </fieldset>
        {!crossOriginIsolated && (
          <p class="hint">
            Threads need the page to be reloaded once after its first visit, or a server that
            isolates it.
          </p>
        )}
        {progress === null && (
          <button type="submit" class="primary">
            Start
          </button>
        )}
      </form>
      {progress && (
        <section class="card running">
          <label>
            <span role="status">{STEPS[progress.step]}</span>
            <progress value={progress.done} max={progress.total} />
          </label>
          <button type="button" onClick={() => running.current?.stop()}>
            Stop
          </button>
        </section>
      )}
      {message && <Notice kind="bad">{message}.</Notice>}
      {document && <Result document={document} />}
    </>
  );
}

const STEPS: Record<Progress["step"], string> = {
  starting: "Cold starts",
  checking: "Self-check",
  "warming up": "Warming up",
  timing: "Timing",
  preprocessing: "Timing the resizing",
  sustained: "Sustained run",
};

function NumberField(props: {
  name: string;
  value: number;
  low: number;
  high: number;
  disabled?: boolean;
  onChange(value: number): void;
}) {
  return (
    <label>
      {props.name}
      <input
        type="number"
        inputMode="numeric"
        required
        min={props.low}
        max={props.high}
        value={props.value}
        disabled={props.disabled}
        onInput={(event) => {
          const value = event.currentTarget.valueAsNumber;
          if (Number.isInteger(value)) props.onChange(value);
        }}
      />
    </label>
  );
}

function Result({ document }: { document: ProfileDocument }) {
  const { latency, preprocessing, cold_start: cold, runtime, sustained, golden } = document;
  const text = `${JSON.stringify(document, null, 2)}\n`;
  const name = `profile-${document.package.variant}-${document.package.precision}.json`;
  const file = new File([text], name, { type: "application/json" });
  const [shared, setShared] = useState<string | null>(null);
  const share = async () => {
    try {
      if (navigator.canShare?.({ files: [file] })) await navigator.share({ files: [file] });
      else {
        await navigator.clipboard.writeText(text);
        setShared("Copied to the clipboard");
      }
    } catch (error) {
      // Closing the share sheet is not an error.
      if ((error as Error).name !== "AbortError") setShared("It could not be shared; save it");
    }
  };
  const threads = runtime.threads === null ? "" : `, ${runtime.threads} thread`;
  const plural = (runtime.threads ?? 1) > 1 ? "s" : "";
  return (
    <>
      <section class="card" aria-label="Result" role="status">
        <div class="figures">
          <Figure name="p50" value={milliseconds(latency.p50_ms)} unit="ms" />
          <Figure name="p90" value={milliseconds(latency.p90_ms)} unit="ms" />
          <Figure name="p99" value={milliseconds(latency.p99_ms)} unit="ms" />
          <Figure name="max" value={milliseconds(latency.max_ms)} unit="ms" />
        </div>
        <Curve values={latency.runs_ms} label={`Time of each of ${latency.runs} runs`} />
        <Facts
          rows={[
            [
              "Runtime",
              `${runtime.name} ${runtime.version}, ${runtime.execution}${threads}${plural}`,
            ],
            ["Cold start", `${milliseconds(cold.total_ms)} ms, median of ${cold.starts}`],
            ["First run", `${milliseconds(cold.first_run_ms)} ms`],
            ["Resizing a 320 x 240 image", `${milliseconds(preprocessing.p50_ms)} ms`],
            [
              "Golden check",
              golden.sqnr_db === null ? "identical" : `passed, ${golden.sqnr_db.toFixed(1)} dB`,
            ],
          ]}
        />
        {sustained && sustained.points.length > 0 && (
          <>
            <h3>Sustained</h3>
            <Curve
              values={sustained.points.map((point) => point.p50_ms)}
              label={`Median time over ${sustained.points.at(-1)?.time_s.toFixed(0)} seconds`}
            />
          </>
        )}
      </section>
      <div class="buttons">
        <button type="button" class="primary" onClick={share}>
          <Icon name="share" /> Share
        </button>
        <a class="button" href={useObjectUrl(file)} download={name}>
          Save JSON
        </a>
      </div>
      {shared && <p role="status">{shared}</p>}
      <details class="card">
        <summary>Profile document</summary>
        <pre id="profile-document">{text}</pre>
      </details>
    </>
  );
}

function useObjectUrl(file: File): string {
  const [url] = useState(() => URL.createObjectURL(file));
  useEffect(() => () => URL.revokeObjectURL(url), [url]);
  return url;
}

/** Draws values in their order as a line, from zero to the largest. */
function Curve({ values, label }: { values: number[]; label: string }) {
  const largest = Math.max(...values, 1e-9);
  const step = 100 / Math.max(values.length - 1, 1);
  const points = values.map(
    (value, i) => `${(i * step).toFixed(2)},${(30 - (value / largest) * 28).toFixed(2)}`,
  );
  return (
    <figure class="curve">
      <svg viewBox="0 0 100 30" preserveAspectRatio="none" role="img" aria-label={label}>
        <polyline points={points.join(" ")} />
      </svg>
      <figcaption>
        <span>{label}</span>
        <span>0 to {milliseconds(largest)} ms</span>
      </figcaption>
    </figure>
  );
}
