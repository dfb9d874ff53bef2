/** manifest.json: what a package says about itself. Its schema is export/manifest-2.0.schema.json. */

import { type OutputUnit, type Schema, Validator } from "@cfworker/json-schema";
import schema from "../../../../export/manifest-2.0.schema.json";
import { SepViTError } from "./errors";
import { sha256 } from "./hash";

export const SCHEMA_VERSION = 1;
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

/** The parts of a manifest that the app uses. */
export interface Manifest {
  schema_version: number;
  digest: string;
  model: {
    variant: string;
    name: string;
    num_classes: number;
    image_size: number;
    parameters: number;
    macs: number;
  };
  input: InputFacts;
  output: { name: string; shape: number[]; dtype: "float32" };
  target: string;
  precision: Precision;
  quantization: Quantization | null;
  runtime: { name: string; version: string; minimum: string; below: string };
  versions: Record<string, string>;
  recipe: { description: string };
  source: {
    weights_sha256: string;
    file_sha256: string | null;
    file_size: number | null;
    trained_on: string | null;
  };
  files: PackageFile[];
  parity: Parity | null;
}

const validator = new Validator(schema as Schema, "2020-12", false);

/**
 * Read a manifest and check it: schema version, digest, then every field.
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
  if (typeof document !== "object" || document === null || !("schema_version" in document)) {
    throw new SepViTError(
      `${name}/${MANIFEST} is damaged: it is no manifest; export the package again`,
      "damaged-manifest",
    );
  }
  if (document.schema_version !== SCHEMA_VERSION) {
    throw new SepViTError(
      `${name} has manifest schema ${document.schema_version}, this app reads ` +
        `${SCHEMA_VERSION}; update the app or export the package again`,
      "schema",
    );
  }
  // The digest first: a changed bit is damage, wherever it stands.
  const stated = (document as { digest?: unknown }).digest;
  if (stated !== (await manifestDigest(bytes))) {
    throw new SepViTError(
      `${name}/${MANIFEST} was changed since it was exported; export the package again`,
      "digest",
    );
  }
  const result = validator.validate(document);
  if (!result.valid) {
    throw new SepViTError(
      `${name}/${MANIFEST} is not valid: ${firstFault(result.errors)}`,
      "invalid",
    );
  }
  return document as Manifest;
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
  const unknown = /^Property "(.+)" does not match additional properties/.exec(message);
  return unknown ? `${where}.${unknown[1]} is not a known key` : `${where}: ${message}`;
}
