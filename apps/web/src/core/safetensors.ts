/**
 * Reads .safetensors: a little-endian 64-bit length, a JSON header of that length, then the tensors.
 *
 * Format: https://huggingface.co/docs/safetensors
 */

import { SepViTError } from "./errors";

export type Tensor =
  | { dtype: "U8"; shape: number[]; data: Uint8Array }
  | { dtype: "F32"; shape: number[]; data: Float32Array };

interface Entry {
  dtype: string;
  shape: number[];
  data_offsets: [number, number];
}

const ITEM_BYTES: Record<string, number> = { U8: 1, F32: 4 };

/**
 * Read every tensor of a file.
 *
 * @throws SepViTError if the file is damaged, or has a dtype other than U8 and F32.
 */
export function readSafetensors(bytes: Uint8Array): Map<string, Tensor> {
  const damaged = (why: string) =>
    new SepViTError(`the safetensors file is damaged: ${why}`, "tensors");
  if (bytes.length < 8) throw damaged("its header is missing");
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const length = Number(view.getBigUint64(0, true));
  if (length > bytes.length - 8) throw damaged("its header is cut off");
  let header: Record<string, Entry>;
  try {
    header = JSON.parse(new TextDecoder().decode(bytes.subarray(8, 8 + length)));
  } catch {
    throw damaged("its header is not JSON");
  }
  if (typeof header !== "object" || header === null || Array.isArray(header)) {
    throw damaged("its header is not an object");
  }
  const body = bytes.subarray(8 + length);
  const tensors = new Map<string, Tensor>();
  const places: [number, number][] = [];
  for (const [name, entry] of Object.entries(header)) {
    if (name === "__metadata__") continue;
    const itemBytes = ITEM_BYTES[entry?.dtype];
    if (itemBytes === undefined) {
      throw new SepViTError(`tensor ${name} has dtype ${entry?.dtype}, not U8 or F32`, "tensors");
    }
    const { shape, data_offsets: offsets } = entry;
    const whole = (values: unknown): values is number[] =>
      Array.isArray(values) && values.every((v) => Number.isSafeInteger(v) && v >= 0);
    if (!whole(shape) || !whole(offsets) || offsets.length !== 2) {
      throw damaged(`tensor ${name} has an invalid shape or offset`);
    }
    const [start, end] = offsets as [number, number];
    const size = shape.reduce((product, side) => product * side, itemBytes);
    if (end - start !== size || end > body.length) {
      throw damaged(`tensor ${name} does not fit its place`);
    }
    places.push([start, end]);
    // A copy: float32 needs an aligned start.
    const data = body.slice(start, end);
    tensors.set(
      name,
      entry.dtype === "U8"
        ? { dtype: "U8", shape, data }
        : { dtype: "F32", shape, data: new Float32Array(data.buffer) },
    );
  }
  places.sort((a, b) => a[0] - b[0] || a[1] - b[1]);
  const covered = places.reduce((at, [start, end]) => (start === at ? end : -1), 0);
  if (covered !== body.length) throw damaged("its tensors do not cover it");
  return tensors;
}
