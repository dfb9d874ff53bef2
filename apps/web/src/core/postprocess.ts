/**
 * From raw outputs of dense models to class maps and boxes, the same bits as in Python.
 *
 * The rule is stated in tests/vectors/README.md: all arithmetic in double precision, in this order.
 */

import type { Pixels } from "./pixels";
import { resize } from "./preprocess";

export interface Size {
  width: number;
  height: number;
}

/** The manifest's facts of a detection package's post-processing. */
export interface DetectionRule {
  strides: number[];
  ratios: number[];
  scales: number[];
  size_delta_limit: number;
  score_threshold: number;
  level_candidates: number;
  iou_threshold: number;
  max_detections: number;
}

/** Left, top, right, bottom in pixels; right and bottom are exclusive. */
export type Corners = [number, number, number, number];

export interface Detection {
  box: Corners;
  score: number;
  label: number;
}

/** Return the size of a whole image inside an input, in its own proportions. */
export function contentSize(image: Size, input: Size): Size {
  if (image.width * input.height >= image.height * input.width) {
    const height = Math.floor((image.height * input.width) / image.width);
    return { width: input.width, height: Math.max(1, height) };
  }
  const width = Math.floor((image.width * input.height) / image.height);
  return { width: Math.max(1, width), height: input.height };
}

/**
 * Put a whole image into the top left corner of an input, with the mean colour around it.
 *
 * @param mean Mean per channel, for pixels scaled to 0..1.
 * @returns RGB, row by row, and the size of the image in it.
 */
export function fitImage(
  image: Pixels,
  mean: readonly number[],
  input: Size,
): { pixels: Uint8Array; content: Size } {
  const content = contentSize(image, input);
  const resized = resize(image, content.width, content.height);
  const colour = mean.map((value) => Math.floor(255 * value + 0.5));
  const pixels = new Uint8Array(input.width * input.height * 3);
  for (let i = 0; i < pixels.length; i++) pixels[i] = colour[i % 3] as number;
  const line = content.width * 3;
  for (let y = 0; y < content.height; y++) {
    pixels.set(resized.subarray(y * line, (y + 1) * line), y * input.width * 3);
  }
  return { pixels, content };
}

/** Move a box of the input back to the image. */
export function boxBack(box: Corners, image: Size, content: Size): Corners {
  const x = image.width / content.width;
  const y = image.height / content.height;
  const [left, top, right, bottom] = box;
  return [
    Math.fround(left * x),
    Math.fround(top * y),
    Math.fround(right * x),
    Math.fround(bottom * y),
  ];
}

/** Cut the image out of a class map of the input, and resize it to the image's nearest pixels. */
export function mapBack(
  classes: ArrayLike<number>,
  input: Size,
  image: Size,
  content: Size,
): Uint16Array {
  const source = (at: number, to: number, of: number) => Math.floor(((2 * at + 1) * of) / (2 * to));
  const out = new Uint16Array(image.width * image.height);
  for (let y = 0; y < image.height; y++) {
    const row = source(y, image.height, content.height) * input.width;
    for (let x = 0; x < image.width; x++) {
      const from = row + source(x, image.width, content.width);
      out[y * image.width + x] = classes[from] as number;
    }
  }
  return out;
}

/** Compute e^x by operations that every language rounds alike; `Math.exp` differs. */
export function exponential(x: number): number {
  const clipped = Math.min(Math.max(x, -88), 88);
  const k = Math.floor(clipped * Math.LOG2E + 0.5);
  const r = clipped - k * Math.LN2;
  let s = 1;
  for (let i = 13; i > 0; i--) s = 1 + (r * s) / i;
  for (let i = 0; i < Math.abs(k); i++) s = k > 0 ? s * 2 : s / 2;
  return s;
}

/**
 * Return the class of each pixel of the input.
 *
 * @param logits `classes * height * width` values.
 * @returns `height * stride` rows of `width * stride` classes.
 */
export function classMap(
  logits: Float32Array,
  classes: number,
  { width, height }: Size,
  stride = 4,
): Uint16Array {
  const columns = taps(width, stride);
  const rows = taps(height, stride);
  const across = width * stride;
  const chosen = new Uint16Array(across * height * stride);
  const best = new Float64Array(chosen.length).fill(Number.NEGATIVE_INFINITY);
  const wide = new Float64Array(height * across);
  for (let label = 0; label < classes; label++) {
    const plane = logits.subarray(label * height * width, (label + 1) * height * width);
    for (let y = 0; y < height; y++) {
      columns.forEach(({ before, after, weight }, x) => {
        const first = plane[y * width + before] as number;
        const second = plane[y * width + after] as number;
        wide[y * across + x] = first * (1 - weight) + second * weight;
      });
    }
    rows.forEach(({ before, after, weight }, y) => {
      for (let x = 0; x < across; x++) {
        const first = wide[before * across + x] as number;
        const second = wide[after * across + x] as number;
        const value = first * (1 - weight) + second * weight;
        const at = y * across + x;
        if (value > (best[at] as number)) {
          best[at] = value;
          chosen[at] = label;
        }
      }
    });
  }
  return chosen;
}

/** The two neighbours of an output, and the second one's weight. */
interface Tap {
  before: number;
  after: number;
  weight: number;
}

function taps(length: number, stride: number): Tap[] {
  return Array.from({ length: length * stride }, (_, i) => {
    const place = Math.max((i + 0.5) / stride - 0.5, 0);
    const before = Math.floor(place);
    return { before, after: Math.min(before + 1, length - 1), weight: place - before };
  });
}

interface Anchor {
  x: number;
  y: number;
  width: number;
  height: number;
}

/** Return the anchors of each level. */
export function anchors(rule: DetectionRule, input: Size): Anchor[][] {
  return rule.strides.map((stride) => {
    const shapes = rule.ratios.flatMap((ratio) =>
      rule.scales.map((scale) => ({
        width: stride * scale * (1 / Math.sqrt(ratio)),
        height: stride * scale * Math.sqrt(ratio),
      })),
    );
    const level: Anchor[] = [];
    for (let y = 0; y < Math.ceil(input.height / stride); y++) {
      for (let x = 0; x < Math.ceil(input.width / stride); x++) {
        for (const shape of shapes) level.push({ x: stride * x, y: stride * y, ...shape });
      }
    }
    return level;
  });
}

/**
 * Return the boxes that a detector finds in one image, the best first, in pixels of the input.
 *
 * @param logits A row of `classes` values for each anchor.
 * @param deltas Four values for each anchor.
 * @param content Size of the image inside the input.
 */
export function detect(
  logits: Float32Array,
  deltas: Float32Array,
  classes: number,
  rule: DetectionRule,
  input: Size,
  content: Size = input,
): Detection[] {
  const found: (Detection & { order: number })[] = [];
  let first = 0;
  for (const level of anchors(rule, input)) {
    for (const { order, score } of candidates(
      logits,
      first * classes,
      level.length * classes,
      rule,
    )) {
      const row = Math.floor(order / classes);
      const delta = deltas.subarray(row * 4, row * 4 + 4);
      const box = decode(level[row - first] as Anchor, delta, rule.size_delta_limit, content);
      if (box[2] > box[0] && box[3] > box[1]) {
        found.push({ box, score, label: order % classes, order });
      }
    }
    first += level.length;
  }
  found.sort((a, b) => b.score - a.score || a.order - b.order);
  return suppressed(found, rule).map(({ box, score, label }) => ({ box, score, label }));
}

/**
 * Count the boxes of one answer that another one has too.
 *
 * From the best one down, each takes the free box of its class that it overlaps most, by half at least.
 */
export function sharedBoxes(one: readonly Detection[], other: readonly Detection[]): number {
  const free = new Set(one);
  let shared = 0;
  for (const wanted of other) {
    let best: Detection | null = null;
    for (const candidate of free) {
      if (candidate.label !== wanted.label || overlap(candidate.box, wanted.box) < 0.5) continue;
      if (!best || overlap(candidate.box, wanted.box) > overlap(best.box, wanted.box)) {
        best = candidate;
      }
    }
    if (best) {
      free.delete(best);
      shared++;
    }
  }
  return shared;
}

/** Return the best pairs of anchor and class of a level: places in the logits, and scores. */
function candidates(logits: Float32Array, start: number, count: number, rule: DetectionRule) {
  const pairs: { order: number; score: number }[] = [];
  for (let order = start; order < start + count; order++) {
    const score = Math.fround(1 / (1 + exponential(-(logits[order] as number))));
    if (score > rule.score_threshold) pairs.push({ order, score });
  }
  pairs.sort((a, b) => b.score - a.score || a.order - b.order);
  return pairs.slice(0, rule.level_candidates);
}

function decode(anchor: Anchor, delta: Float32Array, limit: number, content: Size): Corners {
  const [dx, dy, dw, dh] = delta as unknown as Corners;
  const clipped = (value: number) => Math.min(Math.max(value, -limit), limit);
  const x = anchor.x + dx * anchor.width;
  const y = anchor.y + dy * anchor.height;
  const halfWidth = anchor.width * exponential(clipped(dw)) * 0.5;
  const halfHeight = anchor.height * exponential(clipped(dh)) * 0.5;
  const inside = (value: number, most: number) => Math.fround(Math.min(Math.max(value, 0), most));
  return [
    inside(x - halfWidth, content.width),
    inside(y - halfHeight, content.height),
    inside(x + halfWidth, content.width),
    inside(y + halfHeight, content.height),
  ];
}

/** Leave out the boxes that a better one of their class overlaps too much. */
function suppressed<Found extends Detection>(sorted: Found[], rule: DetectionRule): Found[] {
  const kept: Found[] = [];
  for (const one of sorted) {
    if (kept.length === rule.max_detections) break;
    const hidden = kept.some(
      (better) => better.label === one.label && overlap(better.box, one.box) > rule.iou_threshold,
    );
    if (!hidden) kept.push(one);
  }
  return kept;
}

/** Compute intersection over union. */
export function overlap(a: Corners, b: Corners): number {
  const width = Math.max(Math.min(a[2], b[2]) - Math.max(a[0], b[0]), 0);
  const height = Math.max(Math.min(a[3], b[3]) - Math.max(a[1], b[1]), 0);
  const shared = width * height;
  return shared / (area(a) + area(b) - shared);
}

function area([left, top, right, bottom]: Corners): number {
  return (right - left) * (bottom - top);
}
