/**
 * An image as 8-bit samples, row by row.
 *
 * `data` has `width * height * channels` values: 1 channel is grey, 3 are RGB, 4 are RGB and
 * transparency, which preprocessing ignores, as Python's does.
 */
export interface Pixels {
  width: number;
  height: number;
  channels: number;
  data: Uint8Array | Uint8ClampedArray;
}
