import { expect, test } from "vitest";
import { sha256 } from "../src/core/hash";
import {
  anchors,
  boxBack,
  type Corners,
  classMap,
  type Detection,
  type DetectionRule,
  detect,
  exponential,
  fitImage,
  mapBack,
} from "../src/core/postprocess";
import { noise, vectorCases } from "./vectors";

/** Numbers that every language makes for itself. */
function numbers(count: number, seed: number, middle: number, divisor: number): Float32Array {
  const data = noise(count, 1, seed);
  return Float32Array.from({ length: count }, (_, i) => ((data[i] as number) - middle) / divisor);
}

function size([width, height]: [number, number]) {
  return { width, height };
}

function bytes(classes: Uint16Array): Promise<string> {
  return sha256(Uint8Array.from(classes));
}

interface FitCase {
  width: number;
  height: number;
  seed: number;
  mean: number[];
  input: [number, number];
  content: [number, number];
  sha256: string;
  box: Corners;
  box_back: Corners;
  map_back_sha256: string;
}

test("an image fits into an input, and boxes and class maps come back", async () => {
  const cases = vectorCases<FitCase>("fit");
  expect(cases.length).toBeGreaterThan(20);
  for (const c of cases) {
    const image = { width: c.width, height: c.height, channels: 3 };
    const input = size(c.input);
    const data = noise(c.width, c.height, c.seed);
    const { pixels, content } = fitImage({ ...image, data }, c.mean, input);
    expect(content).toEqual(size(c.content));
    expect(await sha256(Uint8Array.from(pixels))).toBe(c.sha256);
    expect(boxBack(c.box, image, content)).toEqual(c.box_back);
    const classes = noise(input.width, input.height, c.seed + 7)
      .filter((_, i) => i % 3 === 0)
      .map((value) => value >> 4);
    expect(await bytes(mapBack(classes, input, image, content))).toBe(c.map_back_sha256);
  }
});

test("the exponential is Python's, to the bit", () => {
  const cases = vectorCases<{ x: number; exp: number }>("exponential");
  for (const { x, exp } of cases) expect(exponential(x), String(x)).toBe(exp);
});

interface MapCase {
  classes: number;
  height: number;
  width: number;
  seed: number;
  divisor: number;
  copied: boolean;
  sha256: string;
}

test("class maps are Python's", async () => {
  for (const c of vectorCases<MapCase>("class_maps")) {
    const area = c.width * c.height;
    const logits = numbers(c.classes * area, c.seed, 128, c.divisor);
    if (c.copied) {
      logits.copyWithin(4 * area, 2 * area, 3 * area);
      logits.fill(Number.NaN, 9 * area, 10 * area);
    }
    expect(await bytes(classMap(logits, c.classes, c))).toBe(c.sha256);
  }
});

interface DetectionCase {
  name: string;
  input: [number, number];
  content: [number, number];
  classes: number;
  seed: number;
  middle: number;
  rule: DetectionRule;
  boxes: Corners[];
  scores: number[];
  labels: number[];
}

test.each(vectorCases<DetectionCase>("detections"))("boxes: $name", (c) => {
  const count = anchors(c.rule, size(c.input)).flat().length;
  const logits = numbers(count * c.classes, c.seed, c.middle, 8);
  const deltas = numbers(count * 4, c.seed + 50, 128, 64);
  const found = detect(logits, deltas, c.classes, c.rule, size(c.input), size(c.content));
  const wanted = c.labels.map((label, i) => ({ box: c.boxes[i], score: c.scores[i], label }));
  expect(found).toEqual(wanted as Detection[]);
});

test("what is not a number is not found", () => {
  const rule = vectorCases<DetectionCase>("detections")[0]?.rule as DetectionRule;
  const input = { width: 64, height: 64 };
  const count = anchors(rule, input).flat().length;
  const none = new Float32Array(count * 4).fill(Number.NaN);
  expect(detect(new Float32Array(count), none, 1, rule, input)).toEqual([]);
  expect(detect(new Float32Array(count).fill(Number.NaN), none, 1, rule, input)).toEqual([]);
});
