/**
 * PNG, decoded without the browser.
 *
 * A browser's canvas multiplies colours by their transparency, and may apply a colour profile or
 * gamma. Here the stored colours are kept, as in Pillow; of 16 bits, the high byte.
 */

import { convertIndexedToRgb, decode, hasPngSignature } from "fast-png";
import { SepViTError } from "./errors";
import type { Pixels } from "./pixels";

export function isPng(bytes: Uint8Array): boolean {
  return bytes.length >= 8 && hasPngSignature(bytes);
}

/** Decode a PNG file to grey, RGB or RGBA, without turning it by its orientation. */
export function decodePng(bytes: Uint8Array, name: string): Pixels {
  try {
    const png = decode(bytes, { checkCrc: true });
    const { width, height, depth } = png;
    if (png.palette) {
      const data = convertIndexedToRgb(png);
      return { width, height, channels: data.length / (width * height), data };
    }
    const samples = width * height * png.channels;
    let data: Uint8Array;
    if (depth === 16) data = Uint8Array.from(png.data, (value) => value >> 8);
    else if (depth === 8) data = new Uint8Array(png.data);
    else data = unpackGrey(png.data, width, height, depth);
    if (data.length !== samples) throw new Error("it is cut short");
    // Two channels are grey and transparency.
    if (png.channels === 2) data = data.filter((_, i) => i % 2 === 0);
    return { width, height, channels: png.channels === 2 ? 1 : png.channels, data };
  } catch (error) {
    throw new SepViTError(`${name} is a damaged image (${(error as Error).message})`, "image");
  }
}

/** Unpack grey of 1, 2 or 4 bits, stored row by row, to 0..255. */
function unpackGrey(packed: ArrayLike<number>, width: number, height: number, depth: number) {
  const out = new Uint8Array(width * height);
  const rowBytes = Math.ceil((width * depth) / 8);
  const largest = (1 << depth) - 1;
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      const byte = packed[y * rowBytes + Math.floor((x * depth) / 8)] ?? 0;
      const value = (byte >> (8 - depth - ((x * depth) % 8))) & largest;
      out[y * width + x] = (value * 255) / largest;
    }
  }
  return out;
}
