/**
 * EXIF orientation: how to read and apply it.
 *
 * Browsers apply it themselves, some formats in some browsers only. So that every browser gives the
 * same pixels, the app sets the tag to 1 ("upright") in a copy of the file, has the browser decode
 * that, and turns the pixels itself.
 */

import type { Pixels } from "./pixels";

const ORIENTATION = 0x0112;
const SHORT = 3;

export interface Orientation {
  /** 1 to 8, as EXIF defines them. */
  value: number;
  /** The file with orientation 1. */
  upright: Uint8Array<ArrayBuffer>;
}

/** Read the orientation of a JPEG, PNG or WebP file; 1 if it is missing. */
export function readOrientation(bytes: Uint8Array<ArrayBuffer>): Orientation {
  const found = findTiff(bytes);
  const tag = found && findTag(bytes, found[0], found[1]);
  if (!tag) return { value: 1, upright: bytes };
  const upright = bytes.slice();
  new DataView(upright.buffer).setUint16(tag.offset, 1, tag.littleEndian);
  return { value: tag.value, upright };
}

/** Return start and end of the TIFF block that holds a file's EXIF. */
function findTiff(bytes: Uint8Array): [number, number] | undefined {
  const text = (start: number, length: number) =>
    String.fromCharCode(...bytes.subarray(start, start + length));
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const past = (start: number) => (text(start, 6) === "Exif\0\0" ? start + 6 : start);

  if (bytes[0] === 0xff && bytes[1] === 0xd8) {
    for (let at = 2; at + 4 <= bytes.length && bytes[at] === 0xff; ) {
      const marker = bytes[at + 1] as number;
      if (marker === 0xff)
        at += 1; // fill byte
      else if (marker === 0xda)
        return undefined; // the picture itself
      else {
        const end = at + 2 + view.getUint16(at + 2);
        if (marker === 0xe1 && text(at + 4, 6) === "Exif\0\0") return [at + 10, end];
        at = end;
      }
    }
  } else if (text(1, 3) === "PNG") {
    for (let at = 8; at + 12 <= bytes.length; ) {
      const length = view.getUint32(at);
      if (text(at + 4, 4) === "eXIf") return [past(at + 8), at + 8 + length];
      at += 12 + length;
    }
  } else if (text(0, 4) === "RIFF" && text(8, 4) === "WEBP") {
    for (let at = 12; at + 8 <= bytes.length; ) {
      const length = view.getUint32(at + 4, true);
      if (text(at, 4) === "EXIF") return [past(at + 8), at + 8 + length];
      at += 8 + length + (length % 2);
    }
  }
  return undefined;
}

function findTag(bytes: Uint8Array, start: number, end: number) {
  const stop = Math.min(end, bytes.length);
  if (stop - start < 10) return undefined;
  const view = new DataView(bytes.buffer, bytes.byteOffset, stop);
  const order = view.getUint16(start);
  if (order !== 0x4949 && order !== 0x4d4d) return undefined;
  const littleEndian = order === 0x4949;
  const directory = start + view.getUint32(start + 4, littleEndian);
  if (directory + 2 > stop) return undefined;
  const count = view.getUint16(directory, littleEndian);
  for (let i = 0; i < count; i++) {
    const entry = directory + 2 + 12 * i;
    if (entry + 12 > stop) return undefined;
    if (view.getUint16(entry, littleEndian) !== ORIENTATION) continue;
    const value = view.getUint16(entry + 8, littleEndian);
    const valid = view.getUint16(entry + 2, littleEndian) === SHORT && value >= 1 && value <= 8;
    return valid ? { value, offset: entry + 8, littleEndian } : undefined;
  }
  return undefined;
}

/** Turn and mirror pixels by an orientation. */
export function orient(image: Pixels, orientation: number): Pixels {
  if (orientation === 1) return image;
  const { width, height, channels, data } = image;
  const swapped = orientation >= 5;
  const outWidth = swapped ? height : width;
  const outHeight = swapped ? width : height;
  // 1-4 keep rows as rows, 5-8 turn them into columns; the source's x or y then runs backwards.
  const flipX = [2, 3, 7, 8].includes(orientation);
  const flipY = [3, 4, 6, 7].includes(orientation);
  const out = new Uint8Array(data.length);
  let to = 0;
  for (let y = 0; y < outHeight; y++) {
    for (let x = 0; x < outWidth; x++) {
      const u = swapped ? y : x;
      const v = swapped ? x : y;
      let from = ((flipY ? height - 1 - v : v) * width + (flipX ? width - 1 - u : u)) * channels;
      for (let c = 0; c < channels; c++) out[to++] = data[from++] as number;
    }
  }
  return { width: outWidth, height: outHeight, channels, data: out };
}
