/** manifest.json: what a package says about itself. Its schema is export/manifest-2.2.schema.json. */

import { type OutputUnit, type Schema, Validator } from "@cfworker/json-schema";
import schema from "../../../../export/manifest-2.2.schema.json";
import { SepViTError } from "./errors";
import { sha256 } from "./hash";
import { anchors, type DetectionRule, type Size } from "./postprocess";

export const SCHEMA_VERSION = "2.2";
export type Task = "classification" | "segmentation" | "detection";
/** The tasks whose packages this app runs, and the meanings of the outputs that each needs. */
const MEANINGS: Record<Task, readonly string[]> = {
  classification: ["class_logits"],
  segmentation: ["class_map_logits"],
  detection: ["box_class_logits", "box_deltas"],
};
const WHOLE_TOP_LEFT = "whole-top-left";
export const MANIFEST = "manifest.json";
export const LABELS = "labels.txt";
export const GOLDEN = "golden.safetensors";

export type Precision = "fp32" | "fp16" | "int8";

export interface InputFacts {
  name: string;
  shape: number[];
  dtype: "uint8" | "float32";
  layout: "NHWC" | "NCHW";
  resize_shorter_side: number;
  crop_size: number;
  crop: number;
  mean: [number, number, number];
  std: [number, number, number];
  inside_graph: string[];
  /** Of a dense model: how the whole image lies in the input. */
  fit?: string | null;
}

/** One output of the model; a reader leaves alone those whose meaning it does not know. */
export interface OutputFacts {
  name: string;
  meaning: string;
  shape: number[];
  dtype: string;
}

export interface PackageFile {
  path: string;
  sha256: string;
  size: number;
}

export interface Parity {
  data: string;
  images: number;
  max_abs_error: number;
  logits_range: number;
  sqnr_db: number;
  top1_agreement: number;
  top1_reference: number | null;
  top1_package: number | null;
}

export interface Quantization {
  scheme: string;
  float_layers: { name: string; reason: string }[];
  calibration_images: number;
  calibration_sha256: string;
}

/** How the logits of a segmentation package become a class map. */
export interface SegmentationRule {
  /** Input pixels per logit. */
  stride: number;
}

/** The parts of a manifest that the app uses. */
export interface Manifest {
  schema_version: string;
  digest: string;
  task: Task;
  model: {
    variant: string;
    name: string;
    form: string;
    num_classes: number;
    image_size: number;
    parameters: number;
    macs: number;
    /** Height and width of a dense model's input. */
    input_size?: [number, number] | null;
  };
  input: InputFacts;
  outputs: OutputFacts[];
  target: string;
  precision: Precision;
  quantization: Quantization | null;
  runtime: { name: string; version: string; minimum: string; below: string };
  versions: Record<string, string>;
  /** For whoever builds the package again; each runtime has its own options. */
  recipe: object;
  source: {
    weights_sha256: string;
    file_sha256: string | null;
    file_size: number | null;
    trained_on: string | null;
  };
  files: PackageFile[];
  parity: Parity | null;
  postprocessing?: ({ task: string } & (SegmentationRule | DetectionRule)) | null;
}

const validator = new Validator(schema as Schema, "2020-12", false);

/**
 * Read a manifest and check it: version, digest, task, then every field.
 *
 * Keys that this app does not know are ignored: a later minor version may add some.
 *
 * @param name What to call the package in an error.
 * @throws SepViTError that says what is wrong with it.
 */
export async function readManifest(
  bytes: Uint8Array<ArrayBuffer>,
  name: string,
): Promise<Manifest> {
  let document: unknown;
  try {
    document = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes));
  } catch {
    document = null;
  }
  if (typeof document !== "object" || document === null) throw damaged(name);
  const stated = document as Record<string, unknown>;
  checkVersion(stated, name);
  // A changed bit is damage, wherever it is.
  if (stated.digest !== (await manifestDigest(bytes))) {
    throw new SepViTError(
      `${name}/${MANIFEST} was changed since it was exported; export the package again`,
      "digest",
    );
  }
  const tasks = Object.keys(MEANINGS);
  if (typeof stated.task === "string" && !tasks.includes(stated.task)) {
    throw new SepViTError(
      `${name} is for the task "${stated.task.slice(0, 40)}", which this app does not run ` +
        `(it runs ${tasks.join(", ")}); update the app`,
      "task",
    );
  }
  const result = validator.validate(document);
  const manifest = document as Manifest;
  const fault = result.valid ? contradiction(manifest) : firstFault(result.errors);
  if (fault) throw new SepViTError(`${name}/${MANIFEST} is not valid: ${fault}`, "invalid");
  return manifest;
}

/** Return what is wrong with a manifest whose fields are right one by one; null if nothing is. */
function contradiction(manifest: Manifest): string | null {
  const { task, outputs, input, model, postprocessing: rule } = manifest;
  for (const meaning of MEANINGS[task]) {
    const found = outputs.filter((output) => output.meaning === meaning);
    if (found.length !== 1 || (found[0]?.dtype ?? "float32") !== "float32") {
      return `outputs: a ${task} package has one output with the meaning ${meaning}, in float32`;
    }
  }
  if (task === "classification") {
    return input.fit ? "input.fit: a classification package does not have one" : null;
  }
  if (rule?.task !== task) return `postprocessing: it is not for ${task}`;
  if (input.fit !== WHOLE_TOP_LEFT) return `input.fit: it is not ${WHOLE_TOP_LEFT}`;
  if (!model.input_size) return "model.input_size: a dense model has one";
  const wanted = denseShapes(manifest);
  const fits = answerOutputs(manifest).every(
    ({ shape }, i) => shape.slice(1).join() === wanted[i]?.join(),
  );
  return fits ? null : "outputs: their shapes do not fit the input and the postprocessing";
}

/** Return the shapes that the outputs of a dense package must have, without the batch. */
function denseShapes(manifest: Manifest): number[][] {
  const { width, height } = inputSize(manifest);
  const classes = manifest.model.num_classes;
  if (manifest.task === "segmentation") {
    const { stride } = manifest.postprocessing as SegmentationRule;
    return [[classes, height / stride, width / stride]];
  }
  const count = anchors(manifest.postprocessing as DetectionRule, { width, height }).flat().length;
  return [
    [count, classes],
    [count, 4],
  ];
}

/** The outputs that the task needs, in the order in which an engine returns them. */
export function answerOutputs({ task, outputs }: Manifest): OutputFacts[] {
  return MEANINGS[task].flatMap((meaning) => outputs.filter((one) => one.meaning === meaning));
}

/** The size of the model's input in pixels. */
export function inputSize({ model, input }: Manifest): Size {
  const [height, width] = model.input_size ?? [input.crop_size, input.crop_size];
  return { width, height };
}

/** Refuse a document without a version, and one of another major version. */
function checkVersion(document: Record<string, unknown>, name: string): void {
  const stated = document.schema_version;
  // The number 1 is version 1; later versions are text.
  const text = stated === 1 ? "1.0" : typeof stated === "string" ? stated : "";
  const match = /^(0|[1-9][0-9]{0,3})\.(0|[1-9][0-9]{0,3})$/.exec(text);
  if (!match) throw damaged(name);
  const major = Number(match[1]);
  const own = Number.parseInt(SCHEMA_VERSION, 10);
  if (major > own) {
    throw new SepViTError(
      `${name} has manifest version ${stated}, this app reads ${SCHEMA_VERSION}; update the app`,
      "newer-schema",
    );
  }
  if (major < own) {
    throw new SepViTError(
      `${name} has manifest version ${stated}, which is no longer read; make the package again: ` +
        exportCommand(document),
      "older-schema",
    );
  }
}

/** The command that makes a package again; nothing of its manifest was checked. */
function exportCommand({ target, precision }: Record<string, unknown>): string {
  const words = ["python -m sepvit_edge.export"];
  if (typeof target === "string" && /^[a-z][a-z0-9-]{0,39}$/.test(target)) {
    words.push(`--target ${target}`);
  }
  if (precision === "fp32" || precision === "fp16" || precision === "int8") {
    words.push(`--precision ${precision}`);
  }
  return [...words, "--weights CHECKPOINT"].join(" ");
}

function damaged(name: string): SepViTError {
  return new SepViTError(
    `${name}/${MANIFEST} is damaged: it is not a manifest; export the package again`,
    "damaged-manifest",
  );
}

/** SHA-256 of the manifest's own bytes, with the digest's 64 characters set to zero. */
export async function manifestDigest(bytes: Uint8Array<ArrayBuffer>): Promise<string> {
  // latin1 keeps one character a byte.
  const text = new TextDecoder("latin1").decode(bytes);
  const found = /"digest": "[0-9a-f]{64}"/.exec(text);
  const sealed = bytes.slice();
  if (found) {
    const start = found.index + '"digest": "'.length;
    sealed.fill("0".charCodeAt(0), start, start + 64);
  }
  return sha256(sealed);
}

/** The innermost of the validator's complaints, with the key that it is about. */
function firstFault(errors: OutputUnit[]): string {
  const depth = (unit: OutputUnit) => unit.keywordLocation.split("/").length;
  const fault = errors.reduce((a, b) => (depth(b) > depth(a) ? b : a));
  const where = fault.instanceLocation.replace(/^#\/?/, "").replaceAll("/", ".") || "the document";
  const message = fault.error.replace(/\.$/, "");
  return `${where}: ${message}`;
}
