import { expect, test } from "vitest";
import { topClasses } from "../src/core/classes";
import { latency, mean, percentile } from "../src/core/statistics";
import { vectorCases } from "./vectors";

interface TopCase {
  logits: number[];
  k: number;
  indices: number[];
  probabilities: number[];
}

test.each(vectorCases<TopCase>("top_k"))("top $k: $indices", ({ logits, k, ...wanted }) => {
  const labels = logits.map((_, i) => String(i));
  const found = topClasses(Float32Array.from(logits), labels, k);
  expect(found.map(({ label }) => Number(label))).toEqual(wanted.indices);
  found.forEach(({ probability }, i) => {
    const exact = wanted.probabilities[i] as number;
    expect(Math.abs(probability - exact)).toBeLessThanOrEqual(1e-6 * exact);
  });
});

type StatisticsCase = { samples: number[] } & Record<
  "count" | "p50" | "p90" | "p99" | "max" | "mean",
  number
>;

test.each(vectorCases<StatisticsCase>("statistics"))("statistics of $count", (c) => {
  const near = (found: number, wanted: number) =>
    expect(Math.abs(found - wanted)).toBeLessThanOrEqual(1e-9 * Math.abs(wanted));
  near(percentile(c.samples, 50), c.p50);
  near(percentile(c.samples, 90), c.p90);
  near(percentile(c.samples, 99), c.p99);
  near(mean(c.samples), c.mean);
  const found = latency(c.samples);
  expect(found.runs).toBe(c.count);
  expect(found.max_ms).toBeCloseTo(c.max, 3);
  expect(found.p90_ms).toBeCloseTo(c.p90, 3);
});
