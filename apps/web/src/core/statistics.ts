/** Latency statistics, as NumPy computes them. */

export interface Latency {
  runs: number;
  min_ms: number;
  mean_ms: number;
  p50_ms: number;
  p90_ms: number;
  p99_ms: number;
  max_ms: number;
  runs_ms: number[];
}

/** Return a percentile, interpolated linearly: with n samples, the p-th is at (n - 1) p / 100. */
export function percentile(samples: readonly number[], p: number): number {
  const sorted = [...samples].sort((a, b) => a - b);
  const position = ((sorted.length - 1) * p) / 100;
  const low = Math.floor(position);
  const a = sorted[low] as number;
  const b = sorted[Math.min(low + 1, sorted.length - 1)] as number;
  return a + (b - a) * (position - low);
}

export function mean(samples: readonly number[]): number {
  return samples.reduce((sum, value) => sum + value, 0) / samples.length;
}

/** Summarise runs for the profile document, rounded to 0.1 microseconds. */
export function latency(runs: readonly number[]): Latency {
  const runs_ms = runs.map(rounded);
  return {
    runs: runs_ms.length,
    min_ms: percentile(runs_ms, 0),
    mean_ms: rounded(mean(runs_ms)),
    p50_ms: rounded(percentile(runs_ms, 50)),
    p90_ms: rounded(percentile(runs_ms, 90)),
    p99_ms: rounded(percentile(runs_ms, 99)),
    max_ms: percentile(runs_ms, 100),
    runs_ms,
  };
}

/** Round milliseconds to four decimals. */
export function rounded(ms: number): number {
  return Math.round(ms * 1e4) / 1e4;
}
