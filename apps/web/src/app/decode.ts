/** Decodes an image file to upright pixels, the same in every browser. */

import { SepViTError } from "../core/errors";
import { orient, readOrientation } from "../core/exif";
import type { Pixels } from "../core/pixels";
import { decodePng, isPng } from "../core/png";
import { checkSize } from "../core/preprocess";

/** Rows that are read at once, because phones limit the area of a canvas. */
const STRIP = 512;

/**
 * Decode an image file.
 *
 * PNG is decoded here. The browser decodes JPEG, WebP and its other formats, without colour management
 * and without turning them; it multiplies transparency in.
 *
 * @throws SepViTError if the file is not an image, or is damaged, too small or too large.
 */
export async function decodeImage(file: Blob, name: string): Promise<Pixels> {
  const bytes = new Uint8Array(await file.arrayBuffer());
  if (isPng(bytes)) {
    checkPngSize(bytes, name);
    const { value } = readOrientation(bytes);
    return orient(decodePng(bytes, name), value);
  }
  const { value, upright } = readOrientation(bytes);
  let bitmap: ImageBitmap;
  try {
    bitmap = await createImageBitmap(new Blob([upright], { type: file.type }), {
      colorSpaceConversion: "none",
      premultiplyAlpha: "none",
    });
  } catch {
    const kind = file.type.startsWith("image/") || file.type === "" ? "" : ` (${file.type})`;
    throw new SepViTError(`${name} is not an image that this browser can read${kind}`, "image");
  }
  try {
    checkSize(bitmap.width, bitmap.height, name);
    return orient(readBitmap(bitmap), value);
  } finally {
    bitmap.close();
  }
}

/** Check the size that a PNG states in its header, before it is unpacked. */
function checkPngSize(bytes: Uint8Array, name: string): void {
  if (bytes.length < 24) return;
  const view = new DataView(bytes.buffer, bytes.byteOffset);
  checkSize(view.getUint32(16), view.getUint32(20), name);
}

/** Read a bitmap's pixels as RGB, strip by strip. */
export function readBitmap(bitmap: ImageBitmap): Pixels {
  const { width, height } = bitmap;
  const rows = Math.min(height, STRIP);
  const canvas = new OffscreenCanvas(width, rows);
  const context = canvas.getContext("2d", { willReadFrequently: true, colorSpace: "srgb" });
  if (!context)
    throw new SepViTError("not enough memory for this image; close other pages and try again");
  // Copy, do not blend with the strip before.
  context.globalCompositeOperation = "copy";
  context.imageSmoothingEnabled = false;
  const data = new Uint8Array(width * height * 3);
  let to = 0;
  for (let top = 0; top < height; top += rows) {
    context.drawImage(bitmap, 0, -top);
    const count = Math.min(rows, height - top);
    const rgba = context.getImageData(0, 0, width, count).data;
    for (let from = 0; from < rgba.length; from += 4) {
      data[to++] = rgba[from] as number;
      data[to++] = rgba[from + 1] as number;
      data[to++] = rgba[from + 2] as number;
    }
  }
  return { width, height, channels: 3, data };
}
