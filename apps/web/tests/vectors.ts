/** Reads tests/vectors, which Python made. */

import { readFileSync } from "node:fs";
import { join } from "node:path";
import { expect } from "vitest";
import { sha256 } from "../src/core/hash";
import { GOLDEN, manifestDigest } from "../src/core/manifest";
import { Package, type PackageFolder } from "../src/core/package";

const FOLDER = join(import.meta.dirname, "../../../tests/vectors");

export function vectorBytes(path: string): Uint8Array<ArrayBuffer> {
  return new Uint8Array(readFileSync(join(FOLDER, path)));
}

export function vectorCases<Case>(name: string): Case[] {
  return JSON.parse(readFileSync(join(FOLDER, `${name}.json`), "utf8"));
}

/** The pixels that every language makes for itself. */
export function noise(width: number, height: number, seed: number): Uint8Array {
  let state = seed;
  return Uint8Array.from({ length: width * height * 3 }, () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state >>> 24;
  });
}

/** A tiny package in memory, to be damaged. */
export class MemoryFolder implements PackageFolder {
  name = "package";

  constructor(readonly files: Map<string, Uint8Array<ArrayBuffer>>) {}

  /** One of the tiny packages: of a classifier, or of a dense model. */
  static tiny(kind = "package"): MemoryFolder {
    const names = ["manifest.json", "labels.txt", "golden.safetensors", "model.onnx"];
    return new MemoryFolder(new Map(names.map((name) => [name, vectorBytes(`${kind}/${name}`)])));
  }

  async read(path: string): Promise<Uint8Array<ArrayBuffer> | null> {
    return this.files.get(path) ?? null;
  }
}

/** A change of a case; the vectors' README.md describes them. */
export type Edit =
  | { op: "flip"; file: string; byte: number; bit: number }
  | { op: "truncate"; file: string; bytes: number }
  | { op: "append" | "write"; file: string; text: string }
  | { op: "delete"; file: string }
  | { op: "replace"; file: string; from: string; to: string }
  | { op: "seal" }
  | { op: "link"; file: string; target: string; text: string };

/** The tiny package, damaged as a case says. */
export async function edited(edits: Edit[]): Promise<MemoryFolder> {
  const folder = MemoryFolder.tiny();
  const { files } = folder;
  const text = (file: string) => new TextDecoder().decode(files.get(file));
  const write = (file: string, value: string) => files.set(file, new TextEncoder().encode(value));
  for (const edit of edits) {
    if (edit.op === "flip") {
      const bytes = files.get(edit.file) as Uint8Array;
      bytes[edit.byte] = (bytes[edit.byte] as number) ^ (1 << edit.bit);
    } else if (edit.op === "truncate") {
      files.set(edit.file, (files.get(edit.file) as Uint8Array<ArrayBuffer>).slice(0, edit.bytes));
    } else if (edit.op === "append") write(edit.file, text(edit.file) + edit.text);
    else if (edit.op === "write") write(edit.file, edit.text);
    else if (edit.op === "delete") files.delete(edit.file);
    else if (edit.op === "replace") {
      expect(text(edit.file)).toContain(edit.from);
      write(
        edit.file,
        text(edit.file).replace(edit.from, () => edit.to),
      );
    } else if (edit.op === "seal") {
      const bytes = files.get("manifest.json") as Uint8Array<ArrayBuffer>;
      const digest = await manifestDigest(bytes);
      write("manifest.json", text("manifest.json").replace(/[0-9a-f]{64}/, digest));
    }
  }
  return folder;
}

/** A change of one tensor of the golden vectors. */
export interface GoldenEdit {
  tensor: string;
  offset: number;
  values: number[];
}

/** A tiny package with one tensor of its golden vectors changed, and sealed again. */
export async function tampered(kind: string, edit: GoldenEdit | null): Promise<Package> {
  const folder = MemoryFolder.tiny(kind);
  const golden = folder.files.get(GOLDEN) as Uint8Array<ArrayBuffer>;
  if (edit) {
    const view = new DataView(golden.buffer);
    const length = Number(view.getBigUint64(0, true));
    const header = JSON.parse(new TextDecoder().decode(golden.subarray(8, 8 + length)));
    const { dtype, data_offsets } = header[edit.tensor];
    const start = 8 + length + data_offsets[0];
    edit.values.forEach((value, i) => {
      if (dtype === "U8") view.setUint8(start + edit.offset + i, value);
      else view.setFloat32(start + 4 * (edit.offset + i), value, true);
    });
    await restate(folder, async (manifest) => {
      for (const file of manifest.files) {
        if (file.path === GOLDEN) file.sha256 = await sha256(golden);
      }
    });
  }
  return Package.open(folder);
}

/** Change a package's manifest, and seal it again. */
export async function restate(
  folder: MemoryFolder,
  // biome-ignore lint/suspicious/noExplicitAny: a manifest that may be wrong
  change: (manifest: any) => void | Promise<void>,
): Promise<void> {
  const manifest = JSON.parse(new TextDecoder().decode(folder.files.get("manifest.json")));
  await change(manifest);
  const encode = () => new TextEncoder().encode(JSON.stringify(manifest, null, 2));
  manifest.digest = await manifestDigest(encode());
  folder.files.set("manifest.json", encode());
}
