/**
 * The rule from an image to a package's input pixels, byte for byte as in Python.
 *
 * The rule (sepvit_edge/data/preprocess.py): the shorter side is resized with Pillow's antialiased
 * BILINEAR, the longer one in proportion, rounded down, first along the rows and then along the
 * columns; then the centre square is cut out. Scaling and normalising are inside the graph.
 */

import { SepViTError } from "./errors";
import type { InputFacts } from "./manifest";
import type { Pixels } from "./pixels";

/** Largest number of pixels, as in Python. A larger image is a mistake or an attack. */
export const MAX_PIXELS = 100_000_000;
/** Fractional bits of the weights, as in Pillow. */
const PRECISION_BITS = 22;
const HALF = 1 << (PRECISION_BITS - 1);

/** Reject an image that is too small or too large to classify. */
export function checkSize(width: number, height: number, name = "the image"): void {
  if (Math.min(width, height) < 2) {
    throw new SepViTError(
      `${name} is ${width} x ${height} pixels; an image needs 2 x 2 at least`,
      "size",
    );
  }
  if (width * height > MAX_PIXELS) {
    throw new SepViTError(
      `${name} is ${width} x ${height} pixels, over ${MAX_PIXELS / 1e6} megapixels; scale it down first`,
      "size",
    );
  }
}

/**
 * Turn an upright image into the model's input pixels.
 *
 * @returns RGB, `crop_size * crop_size * 3` values, row by row.
 * @throws SepViTError if the image is too small, too large or too narrow.
 */
export function preprocess(image: Pixels, input: InputFacts): Uint8Array {
  checkSize(image.width, image.height);
  const [width, height] = resizedSize(image.width, image.height, input.resize_shorter_side);
  const side = input.crop_size;
  const left = Math.floor((width - side) / 2);
  const top = Math.floor((height - side) / 2);
  return resize(image, width, height, { left, top, width: side, height: side });
}

/** Return width and height after resizing the shorter side to `shorter`. */
export function resizedSize(width: number, height: number, shorter: number): [number, number] {
  const size: [number, number] =
    width <= height
      ? [shorter, Math.floor((height * shorter) / width)]
      : [Math.floor((width * shorter) / height), shorter];
  if (size[0] * size[1] > MAX_PIXELS) {
    throw new SepViTError(
      `an image of ${width} x ${height} pixels is too narrow to classify; crop it first`,
      "size",
    );
  }
  return size;
}

export interface Box {
  left: number;
  top: number;
  width: number;
  height: number;
}

/**
 * Resize as Pillow's `Image.resize` with BILINEAR, and cut a box out.
 *
 * Only the box is computed: along the rows, rounded to 8 bits, then along the columns.
 *
 * @returns RGB of the box, row by row.
 */
export function resize(
  image: Pixels,
  width: number,
  height: number,
  box: Box = { left: 0, top: 0, width, height },
): Uint8Array {
  const columns = filter(image.width, width, box.left, box.width);
  const rows = filter(image.height, height, box.top, box.height);
  const used = usedSamples(rows);
  const narrow = resample(image, "x", columns, used);
  return resample(narrow, "y", shifted(rows, used.first), { first: 0, count: box.width }).data;
}

/** Resample lines along one axis to RGB. */
function resample(
  image: Pixels,
  axis: "x" | "y",
  weights: Filter,
  lines: { first: number; count: number },
) {
  const { data, channels } = image;
  const green = channels > 1 ? 1 : 0;
  const blue = channels > 1 ? 2 : 0;
  const samples = weights.starts.length;
  const [width, height] = axis === "x" ? [samples, lines.count] : [lines.count, samples];
  const pitch = image.width * channels;
  const [lineStep, sampleStep] = axis === "x" ? [pitch, channels] : [channels, pitch];
  const [toLine, toSample] = axis === "x" ? [width * 3, 3] : [3, width * 3];
  const out = new Uint8Array(width * height * 3);
  for (let line = 0; line < lines.count; line++) {
    const start = (lines.first + line) * lineStep;
    let to = line * toLine;
    for (let i = 0; i < samples; i++, to += toSample) {
      let from = start + (weights.starts[i] as number) * sampleStep;
      let at = i * weights.stride;
      const end = at + (weights.counts[i] as number);
      let r = HALF;
      let g = HALF;
      let b = HALF;
      for (; at < end; at++, from += sampleStep) {
        const weight = weights.values[at] as number;
        r += (data[from] as number) * weight;
        g += (data[from + green] as number) * weight;
        b += (data[from + blue] as number) * weight;
      }
      out[to] = clip(r);
      out[to + 1] = clip(g);
      out[to + 2] = clip(b);
    }
  }
  return { width, height, channels: 3, data: out };
}

function clip(sum: number): number {
  return Math.min(sum >> PRECISION_BITS, 255);
}

/**
 * Weights of output samples along one axis.
 *
 * Output i is the sum over `counts[i]` inputs from `starts[i]` on, with the fixed-point weights from
 * `values[i * stride]` on.
 */
interface Filter {
  starts: Int32Array;
  counts: Int32Array;
  values: Int32Array;
  stride: number;
}

/** Return a triangle as wide as the reduction, for `samples` outputs from `first` on. */
function filter(inSize: number, outSize: number, first: number, samples: number): Filter {
  const scale = inSize / outSize;
  const support = Math.max(scale, 1);
  const stride = Math.ceil(support) * 2 + 1;
  const starts = new Int32Array(samples);
  const counts = new Int32Array(samples);
  const values = new Int32Array(samples * stride);
  const exact = new Float64Array(stride);
  // Pillow multiplies by the reciprocal; a division would round differently.
  const reciprocal = 1 / support;
  for (let i = 0; i < samples; i++) {
    const center = (first + i + 0.5) * scale;
    const start = Math.max(Math.trunc(center - support + 0.5), 0);
    const count = Math.min(Math.trunc(center + support + 0.5), inSize) - start;
    let sum = 0;
    for (let k = 0; k < count; k++) {
      const weight = Math.max(1 - Math.abs((k + start - center + 0.5) * reciprocal), 0);
      exact[k] = weight;
      sum += weight;
    }
    for (let k = 0; k < count; k++) {
      const share = (exact[k] as number) / sum;
      values[i * stride + k] = Math.trunc(0.5 + share * (1 << PRECISION_BITS));
    }
    starts[i] = start;
    counts[i] = count;
  }
  return { starts, counts, values, stride };
}

/** Return the range of inputs that a filter reads. */
function usedSamples({ starts, counts }: Filter): { first: number; count: number } {
  const last = starts.length - 1;
  const first = starts[0] as number;
  return { first, count: (starts[last] as number) + (counts[last] as number) - first };
}

/** Return the filter for an input that begins at sample `first`. */
function shifted(weights: Filter, first: number): Filter {
  return { ...weights, starts: weights.starts.map((start) => start - first) };
}

/** Convert preprocessed RGB to the dtype and layout of the model's input. */
export function toInput(pixels: Uint8Array, input: InputFacts): Uint8Array | Float32Array {
  const area = pixels.length / 3;
  const out = input.dtype === "uint8" ? new Uint8Array(area * 3) : new Float32Array(area * 3);
  if (input.layout === "NHWC") {
    out.set(pixels);
  } else {
    for (let i = 0; i < area; i++) {
      for (let c = 0; c < 3; c++) out[c * area + i] = pixels[i * 3 + c] as number;
    }
  }
  return out;
}
