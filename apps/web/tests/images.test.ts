import { expect, test } from "vitest";
import { SepViTError } from "../src/core/errors";
import { orient, readOrientation } from "../src/core/exif";
import { decodePng } from "../src/core/png";
import { resize } from "../src/core/preprocess";
import { readSafetensors } from "../src/core/safetensors";
import { vectorBytes, vectorCases } from "./vectors";

interface ImageCase {
  file: string;
  orientation?: number;
  tolerance?: number;
  width?: number;
  height?: number;
  refused?: string;
}

const cases = vectorCases<ImageCase>("images");
const expected = readSafetensors(vectorBytes("images/expected.safetensors"));

test.each(cases.filter((c) => !c.refused))("orientation of $file", ({ file, orientation }) => {
  const bytes = vectorBytes(`images/${file}`);
  const found = readOrientation(bytes);
  expect(found.value).toBe(orientation);
  // The copy for the browser is the same file, upright.
  expect(readOrientation(found.upright).value).toBe(1);
  expect(found.upright.length).toBe(bytes.length);
});

// JPEG is the browser's to decode: e2e/images.spec.ts.
test.each(cases.filter((c) => c.file.endsWith(".png") && !c.refused))("pixels of $file", (c) => {
  const bytes = vectorBytes(`images/${c.file}`);
  const image = orient(decodePng(bytes, c.file), readOrientation(bytes).value);
  expect([image.width, image.height]).toEqual([c.width, c.height]);
  const found = resize(image, image.width, image.height); // as RGB
  const wanted = expected.get(c.file)?.data as Uint8Array;
  expect(found.length).toBe(wanted.length);
  const difference = Math.max(...found.map((value, i) => Math.abs(value - (wanted[i] as number))));
  expect(difference).toBeLessThanOrEqual(c.tolerance as number);
});

test.each(["empty.png", "truncated.png"])("%s is refused in a sentence", (file) => {
  expect(() => decodePng(vectorBytes(`images/${file}`), file)).toThrow(SepViTError);
});

test("orientation of damaged files is 1", () => {
  for (const { file } of cases) {
    const bytes = vectorBytes(`images/${file}`);
    for (let length = 0; length < bytes.length; length += 7) {
      const { value } = readOrientation(bytes.slice(0, length));
      expect(value).toBeGreaterThanOrEqual(1);
      expect(value).toBeLessThanOrEqual(8);
    }
  }
});
