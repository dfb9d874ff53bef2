/** From an image to a package's input, and from its outputs to an answer, by the package's task. */

import { type ClassProbability, topClasses } from "./classes";
import { inputSize, type Manifest, type SegmentationRule } from "./manifest";
import type { Pixels } from "./pixels";
import {
  boxBack,
  type Corners,
  classMap,
  type Detection,
  type DetectionRule,
  detect,
  fitImage,
  mapBack,
  type Size,
} from "./postprocess";
import { checkSize, preprocess } from "./preprocess";

/** A class of a class map. */
export interface ClassShare {
  index: number;
  label: string;
  /** Share of the image's pixels, 0..1. */
  share: number;
}

export interface LabelledBox {
  index: number;
  label: string;
  score: number;
  /** In pixels of the image. */
  box: Corners;
}

/** What a package says about an image; a screen has to ask for the task before it shows one. */
export type Answer =
  | { task: "classification"; classes: ClassProbability[] }
  | {
      task: "segmentation";
      /** The class of each pixel of the image, row by row. */
      map: Uint16Array;
      /** The classes in the map, the largest first. */
      shares: ClassShare[];
    }
  | { task: "detection"; boxes: LabelledBox[] };

/**
 * Turn an upright image into the model's input pixels.
 *
 * @returns RGB, row by row, and the size of the image inside the input.
 * @throws SepViTError if the image is too small, too large or too narrow.
 */
export function inputOf(image: Pixels, manifest: Manifest): { pixels: Uint8Array; content: Size } {
  const size = inputSize(manifest);
  if (manifest.task === "classification") {
    return { pixels: preprocess(image, manifest.input), content: size };
  }
  checkSize(image.width, image.height);
  return fitImage(image, manifest.input.mean, size);
}

/** Boxes with a lower score are not shown; `sepvit-edge predict` has the same limit. */
const LEAST_SCORE = 0.3;

/**
 * Finish the outputs for an image.
 *
 * @param outputs As `Session.run` returns them.
 * @param content Size of the image inside the input (`inputOf`).
 */
export function answerOf(
  outputs: readonly Float32Array[],
  manifest: Manifest,
  labels: readonly string[],
  image: Size,
  content: Size,
): Answer {
  const [first] = outputs as [Float32Array];
  if (manifest.task === "classification") {
    return { task: manifest.task, classes: topClasses(first, labels) };
  }
  if (manifest.task === "segmentation") {
    const map = mapBack(denseMap(first, manifest), inputSize(manifest), image, content);
    return { task: manifest.task, map, shares: classShares(map, labels) };
  }
  const boxes = denseBoxes(outputs, manifest, content)
    .filter(({ score }) => score >= LEAST_SCORE)
    .map(({ box, score, label }) => ({
      index: label,
      label: labels[label] ?? String(label),
      score,
      box: boxBack(box, image, content),
    }));
  return { task: manifest.task, boxes };
}

/** Return the class of each pixel of the input of a segmentation package. */
export function denseMap(logits: Float32Array, manifest: Manifest): Uint16Array {
  const { stride } = manifest.postprocessing as SegmentationRule;
  const { width, height } = inputSize(manifest);
  const size = { width: width / stride, height: height / stride };
  return classMap(logits, manifest.model.num_classes, size, stride);
}

/** Return the boxes of a detection package, in pixels of the input. */
export function denseBoxes(
  outputs: readonly Float32Array[],
  manifest: Manifest,
  content: Size,
): Detection[] {
  const [logits, deltas] = outputs as [Float32Array, Float32Array];
  const rule = manifest.postprocessing as DetectionRule;
  return detect(logits, deltas, manifest.model.num_classes, rule, inputSize(manifest), content);
}

function classShares(map: Uint16Array, labels: readonly string[]): ClassShare[] {
  const counts = new Array<number>(labels.length).fill(0);
  for (const index of map) counts[index] = (counts[index] ?? 0) + 1;
  return counts
    .map((count, index) => ({ index, label: labels[index] ?? "", share: count / map.length }))
    .filter(({ share }) => share > 0)
    .sort((a, b) => b.share - a.share);
}

/** Return the colour of a class, RGB in 0..255, as Python draws it. */
export function colourOf(index: number): [number, number, number] {
  const [saturation, value] = [0.75, 0.95];
  const turn = ((index * 0.618034) % 1) * 6;
  const sector = Math.floor(turn);
  const rest = turn - sector;
  const low = value * (1 - saturation);
  const falling = value * (1 - saturation * rest);
  const rising = value * (1 - saturation * (1 - rest));
  const colours = [
    [value, rising, low],
    [falling, value, low],
    [low, value, rising],
    [low, falling, value],
    [rising, low, value],
    [value, low, falling],
  ];
  return colours[sector]?.map((part) => Math.round(255 * part)) as [number, number, number];
}
