/** Reads tests/vectors, which Python made. */

import { readFileSync } from "node:fs";
import { join } from "node:path";
import type { PackageFolder } from "../src/core/package";

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

/** The tiny package in memory, to be damaged. */
export class MemoryFolder implements PackageFolder {
  name = "package";

  constructor(readonly files: Map<string, Uint8Array<ArrayBuffer>>) {}

  static tiny(): MemoryFolder {
    const names = ["manifest.json", "labels.txt", "golden.safetensors", "model.onnx"];
    return new MemoryFolder(new Map(names.map((name) => [name, vectorBytes(`package/${name}`)])));
  }

  async read(path: string): Promise<Uint8Array<ArrayBuffer> | null> {
    return this.files.get(path) ?? null;
  }
}
