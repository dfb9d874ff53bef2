/** The self-check: image -> pixels -> tensor -> outputs -> answer, compared with Python's at each step. */

import { denseBoxes, denseMap, inputOf } from "./answers";
import type { Session } from "./engine";
import { SepViTError } from "./errors";
import { answerOutputs, inputSize, type Manifest, type Precision } from "./manifest";
import type { Pixels } from "./pixels";
import { type Corners, contentSize, type Detection, sharedBoxes } from "./postprocess";
import { toInput } from "./preprocess";
import type { Tensor } from "./safetensors";

/** The SQNR that another device must reach (tests/vectors/minimum_sqnr.json). */
export const MINIMUM_SQNR_DB: Record<Precision, number> = { fp32: 80, fp16: 40, int8: 20 };
/** The share of pixels or boxes that a dense model's answer must have in common with Python's. */
export const MINIMUM_AGREEMENT: Record<Precision, number> = { fp32: 0.95, fp16: 0.8, int8: 0.5 };
/** Numbers of an output that golden vectors of dense packages keep, for each image. */
const KEPT = 65_536;

export interface PixelDifference {
  /** Number of the golden image. */
  image: number;
  differentValues: number;
  maxDifference: number;
}

export interface SelfCheck {
  passed: boolean;
  /** The first step that differs. */
  failsAt: "pixels" | "tensor" | "logits" | "outputs" | "answer" | null;
  images: number;
  /** The images whose resized pixels differ from Python's. */
  pixelDifferences: PixelDifference[];
  /** The fault of the input tensor, if any. */
  tensorFault: string | null;
  /** The output with the smallest SQNR; the figures below are its. */
  output: string;
  /** SQNR against the package's output in Python, at most 200 dB. */
  sqnrDb: number;
  minimumSqnrDb: number;
  maxAbsError: number;
  /** The golden image with the largest error. */
  worstImage: number;
  /** SQNR against the fp32 reference, for information only. */
  referenceSqnrDb: number;
  /** Share of the images with the same class as in Python, or of the same pixels or boxes, 0..1. */
  agreement: number;
  /** Null for a classifier, whose agreement decides nothing. */
  minimumAgreement: number | null;
}

/** One output of the golden images: by the package and the reference in Python, and here. */
interface GoldenOutput {
  name: string;
  /** Numbers of an image. */
  each: number;
  expected: Float32Array;
  reference: Float32Array;
  measured: Float32Array;
}

/** Check a loaded package against its golden vectors. */
export async function selfCheck(session: Session): Promise<SelfCheck> {
  const { manifest } = session.pack;
  const { precision, task } = manifest;
  const golden = session.pack.golden();
  const pixels = bytes(golden, "pixels");
  const images = pixels.shape[0] ?? 0;
  const { width, height } = inputSize(manifest);
  const pixelsEach = width * height * 3;
  const outputs = goldenOutputs(golden, manifest, images);
  const fits = outputs.every(
    ({ each, expected, reference }) =>
      expected.length === images * each && reference.length === images * each,
  );
  if (images === 0 || pixels.data.length !== images * pixelsEach || !fits) throw doNotFit();

  const pixelDifferences: PixelDifference[] = [];
  let fault: string | null = null;
  const agreement = { same: 0, all: 0 };
  for (let image = 0; image < images; image++) {
    const wanted = pixels.data.subarray(image * pixelsEach, (image + 1) * pixelsEach);
    const picture = goldenImage(golden, image);
    const difference = compareBytes(inputOf(picture, manifest).pixels, wanted);
    if (difference.differentValues > 0) pixelDifferences.push({ image, ...difference });
    fault ??= tensorFault(toInput(wanted, manifest.input), wanted, manifest);
    // The golden pixels, so that a wrong resize does not look like a wrong model.
    const found = await session.run(wanted);
    outputs.forEach(({ each, measured }, i) => {
      measured.set(kept(found[i] as Float32Array), image * each);
    });
    const { same, all } = compareAnswers(found, golden, manifest, image, picture);
    agreement.same += same;
    agreement.all += all;
  }

  const compared = outputs.map(compareOutput);
  // NaN is the worst.
  const worst = compared.reduce((a, b) => (b.sqnrDb >= a.sqnrDb || Number.isNaN(a.sqnrDb) ? a : b));
  const minimumSqnrDb = MINIMUM_SQNR_DB[precision];
  const share = agreement.all === 0 ? 1 : agreement.same / agreement.all;
  const minimumAgreement = task === "classification" ? null : MINIMUM_AGREEMENT[precision];
  const failsAt =
    pixelDifferences.length > 0
      ? "pixels"
      : fault
        ? "tensor"
        : !(worst.sqnrDb >= minimumSqnrDb) // not "<": NaN must fail
          ? task === "classification"
            ? "logits"
            : "outputs"
          : share < (minimumAgreement ?? 0)
            ? "answer"
            : null;
  return {
    passed: failsAt === null,
    failsAt,
    images,
    pixelDifferences,
    tensorFault: fault,
    ...worst,
    minimumSqnrDb,
    agreement: share,
    minimumAgreement,
  };
}

/** Return the golden numbers of every output, with a place for those of this device. */
function goldenOutputs(
  golden: Map<string, Tensor>,
  manifest: Manifest,
  images: number,
): GoldenOutput[] {
  return answerOutputs(manifest).map(({ name, shape }) => {
    const join = manifest.task === "classification" ? "_logits" : `.${name}`;
    const numbers = shape.slice(1).reduce((product, side) => product * side, 1);
    const each = Math.ceil(numbers / keptStep(numbers));
    return {
      name,
      each,
      expected: floats(golden, `package${join}`).data,
      reference: floats(golden, `reference${join}`).data,
      measured: new Float32Array(images * each),
    };
  });
}

/** The step between the numbers of an output that golden vectors keep: the least odd one that fits. */
export function keptStep(numbers: number): number {
  return Math.ceil(numbers / KEPT) | 1;
}

function kept(output: Float32Array): Float32Array {
  const step = keptStep(output.length);
  return step === 1 ? output : output.filter((_, i) => i % step === 0);
}

function compareOutput({ name, each, expected, reference, measured }: GoldenOutput) {
  const errors = expected.map((value, i) => Math.abs(value - (measured[i] as number)));
  const worst = errors.reduce((best, value, i) => (value > (errors[best] as number) ? i : best), 0);
  return {
    output: name,
    sqnrDb: sqnrDb(expected, measured),
    maxAbsError: errors[worst] as number,
    worstImage: Math.floor(worst / each),
    referenceSqnrDb: sqnrDb(reference, measured),
  };
}

/** Count what the finished answers to a golden image have in common, and all that they have. */
function compareAnswers(
  outputs: readonly Float32Array[],
  golden: Map<string, Tensor>,
  manifest: Manifest,
  image: number,
  picture: Pixels,
): { same: number; all: number } {
  const [first] = outputs as [Float32Array];
  if (manifest.task === "classification") {
    const { data } = floats(golden, "package_logits");
    const wanted = data.subarray(image * first.length, (image + 1) * first.length);
    return { same: best(wanted) === best(first) ? 1 : 0, all: 1 };
  }
  if (manifest.task === "segmentation") {
    const map = denseMap(first, manifest);
    const wanted = golden.get("package.class_map")?.data;
    if (!wanted) throw missing("package.class_map");
    const start = image * map.length;
    if (wanted.length < start + map.length) throw doNotFit();
    let same = 0;
    for (let i = 0; i < map.length; i++) if (map[i] === wanted[start + i]) same++;
    return { same, all: map.length };
  }
  const content = contentSize(picture, inputSize(manifest));
  const found = denseBoxes(outputs, manifest, content);
  const wanted = goldenBoxes(golden, image);
  return { same: 2 * sharedBoxes(found, wanted), all: found.length + wanted.length };
}

function goldenBoxes(golden: Map<string, Tensor>, image: number): Detection[] {
  const [boxes, scores, classes] = ["boxes", "scores", "classes"].map(
    (name) => floats(golden, `package.${name}.${image}`).data,
  ) as [Float32Array, Float32Array, Float32Array];
  if (boxes.length !== 4 * scores.length || classes.length !== scores.length) throw doNotFit();
  return Array.from(scores, (score, i) => ({
    box: [...boxes.subarray(4 * i, 4 * i + 4)] as Corners,
    score,
    label: classes[i] as number,
  }));
}

function best(logits: Float32Array): number {
  return logits.reduce((top, value, i) => (value > (logits[top] as number) ? i : top), 0);
}

/** Read an input tensor back by the manifest's shape and layout, and compare it with its pixels. */
function tensorFault(
  tensor: Uint8Array | Float32Array,
  pixels: Uint8Array,
  manifest: Manifest,
): string | null {
  const { input } = manifest;
  const size = inputSize(manifest);
  const [, a, b, c] = input.shape;
  const [height, width, channels] = input.layout === "NHWC" ? [a, b, c] : [b, c, a];
  const fits = height === size.height && width === size.width && channels === 3;
  if (input.shape.length !== 4 || !fits) {
    return `the model takes ${input.shape.join(" x ")}, not ${size.width} x ${size.height} pixels`;
  }
  const area = size.width * size.height;
  const [pixelStep, channelStep] = input.layout === "NHWC" ? [3, 1] : [1, area];
  for (let i = 0; i < area; i++) {
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

function doNotFit(): SepViTError {
  return new SepViTError("the golden vectors do not fit the manifest; export the package again");
}

function missing(name: string): SepViTError {
  return new SepViTError(`${name} is missing from the golden vectors; export the package again`);
}
