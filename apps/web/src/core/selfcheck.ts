/** The self-check: image -> pixels -> tensor -> logits, compared with Python's at each step. */

import type { Session } from "./engine";
import { SepViTError } from "./errors";
import type { InputFacts, Precision } from "./manifest";
import type { Pixels } from "./pixels";
import { preprocess, toInput } from "./preprocess";
import type { Tensor } from "./safetensors";

/** The SQNR that another device must reach (tests/vectors/minimum_sqnr.json). */
export const MINIMUM_SQNR_DB: Record<Precision, number> = { fp32: 80, fp16: 40, int8: 20 };

export interface PixelDifference {
  /** Number of the golden image. */
  image: number;
  differentValues: number;
  maxDifference: number;
}

export interface SelfCheck {
  passed: boolean;
  /** The first step that differs. */
  failsAt: "pixels" | "tensor" | "logits" | null;
  images: number;
  /** The images whose resized pixels differ from Python's. */
  pixelDifferences: PixelDifference[];
  /** The fault of the input tensor, if any. */
  tensorFault: string | null;
  /** SQNR of the logits against `package_logits`, at most 200 dB. */
  sqnrDb: number;
  minimumSqnrDb: number;
  maxAbsError: number;
  /** The golden image with the largest error. */
  worstImage: number;
  /** Share of the images with the same class as in Python, 0..1. */
  top1Agreement: number;
  /** SQNR of the logits against the fp32 reference, for information only. */
  referenceSqnrDb: number;
}

/** Check a loaded package against its golden vectors. */
export async function selfCheck(session: Session): Promise<SelfCheck> {
  const { input, model, precision } = session.pack.manifest;
  const golden = session.pack.golden();
  const pixels = bytes(golden, "pixels");
  const expected = floats(golden, "package_logits");
  const reference = floats(golden, "reference_logits");
  const images = pixels.shape[0] ?? 0;
  const pixelsEach = input.crop_size * input.crop_size * 3;
  const logitsEach = model.num_classes;
  const fits = (tensor: Tensor, each: number) => tensor.data.length === images * each;
  if (
    images === 0 ||
    !fits(pixels, pixelsEach) ||
    !fits(expected, logitsEach) ||
    !fits(reference, logitsEach)
  ) {
    throw new SepViTError("the golden vectors do not fit the manifest; export the package again");
  }

  const pixelDifferences: PixelDifference[] = [];
  let fault: string | null = null;
  const measured = new Float32Array(images * logitsEach);
  for (let image = 0; image < images; image++) {
    const wanted = pixels.data.subarray(image * pixelsEach, (image + 1) * pixelsEach);
    const difference = compareBytes(preprocess(goldenImage(golden, image), input), wanted);
    if (difference.differentValues > 0) pixelDifferences.push({ image, ...difference });
    fault ??= tensorFault(toInput(wanted, input), wanted, input);
    // The golden pixels, so that a wrong resize does not look like a wrong model.
    measured.set(await session.run(wanted), image * logitsEach);
  }

  const errors = expected.data.map((value, i) => Math.abs(value - (measured[i] as number)));
  const worst = errors.reduce((best, value, i) => (value > (errors[best] as number) ? i : best), 0);
  const minimumSqnrDb = MINIMUM_SQNR_DB[precision];
  const noise = sqnrDb(expected.data, measured);
  // Not "noise < minimum": NaN must fail.
  const logitsPass = noise >= minimumSqnrDb;
  const failsAt =
    pixelDifferences.length > 0 ? "pixels" : fault ? "tensor" : logitsPass ? null : "logits";
  return {
    passed: failsAt === null,
    failsAt,
    images,
    pixelDifferences,
    tensorFault: fault,
    sqnrDb: noise,
    minimumSqnrDb,
    maxAbsError: errors[worst] as number,
    worstImage: Math.floor(worst / logitsEach),
    top1Agreement: agreement(expected.data, measured, logitsEach),
    referenceSqnrDb: sqnrDb(reference.data, measured),
  };
}

/** Read an input tensor back by the manifest's shape and layout, and compare it with its pixels. */
function tensorFault(
  tensor: Uint8Array | Float32Array,
  pixels: Uint8Array,
  input: InputFacts,
): string | null {
  const [, a, b, c] = input.shape;
  const [height, width, channels] = input.layout === "NHWC" ? [a, b, c] : [b, c, a];
  const side = input.crop_size;
  if (input.shape.length !== 4 || height !== side || width !== side || channels !== 3) {
    return `the model takes ${input.shape.join(" x ")}, not ${side} x ${side} pixels`;
  }
  const [pixelStep, channelStep] = input.layout === "NHWC" ? [3, 1] : [1, side * side];
  for (let i = 0; i < side * side; i++) {
    for (let channel = 0; channel < 3; channel++) {
      const value = tensor[i * pixelStep + channel * channelStep];
      if (value !== pixels[i * 3 + channel]) {
        return `pixel ${i} is ${value} in channel ${channel}, not ${pixels[i * 3 + channel]}`;
      }
    }
  }
  return null;
}

/** Return a golden image before resizing. */
export function goldenImage(golden: Map<string, Tensor>, index: number): Pixels {
  const { shape, data } = bytes(golden, `image.${index}`);
  const [height = 0, width = 0, channels = 1] = shape;
  if (shape.length < 2 || shape.length > 3) {
    throw new SepViTError(`golden image ${index} is not an image; export the package again`);
  }
  // Two channels are grey and transparency.
  return channels === 2
    ? { width, height, channels: 1, data: data.filter((_, i) => i % 2 === 0) }
    : { width, height, channels, data };
}

/**
 * Return the signal-to-quantisation-noise ratio (SQNR) in dB: 10 log10(sum s^2 / sum (s - m)^2).
 *
 * The result is at most 200 dB, also for identical values: float32 cannot resolve more.
 */
export function sqnrDb(signal: Float32Array, measured: Float32Array): number {
  let power = 0;
  let noise = 0;
  for (let i = 0; i < signal.length; i++) {
    power += (signal[i] as number) ** 2;
    noise += ((signal[i] as number) - (measured[i] as number)) ** 2;
  }
  return noise === 0 ? 200 : Math.min(10 * Math.log10(power / noise), 200);
}

function agreement(a: Float32Array, b: Float32Array, classes: number): number {
  const best = (values: Float32Array, row: number) => {
    const logits = values.subarray(row * classes, (row + 1) * classes);
    return logits.reduce((top, value, i) => (value > (logits[top] as number) ? i : top), 0);
  };
  const rows = a.length / classes;
  let same = 0;
  for (let row = 0; row < rows; row++) if (best(a, row) === best(b, row)) same++;
  return same / rows;
}

function compareBytes(found: Uint8Array, wanted: Uint8Array) {
  let differentValues = 0;
  let maxDifference = 0;
  for (let i = 0; i < wanted.length; i++) {
    const difference = Math.abs((found[i] as number) - (wanted[i] as number));
    if (difference > 0) differentValues++;
    if (difference > maxDifference) maxDifference = difference;
  }
  return { differentValues, maxDifference };
}

/** Return a tensor of bytes, or throw if it is missing. */
export function bytes(golden: Map<string, Tensor>, name: string) {
  const tensor = golden.get(name);
  if (tensor?.dtype !== "U8") throw missing(name);
  return tensor;
}

function floats(golden: Map<string, Tensor>, name: string) {
  const tensor = golden.get(name);
  if (tensor?.dtype !== "F32") throw missing(name);
  return tensor;
}

function missing(name: string): SepViTError {
  return new SepViTError(`${name} is missing from the golden vectors; export the package again`);
}
