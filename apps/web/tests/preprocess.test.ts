import { expect, test } from "vitest";
import { SepViTError } from "../src/core/errors";
import { sha256 } from "../src/core/hash";
import type { InputFacts } from "../src/core/manifest";
import { checkSize, preprocess, resize, resizedSize, toInput } from "../src/core/preprocess";
import { noise, vectorCases } from "./vectors";

interface ResizeCase {
  width: number;
  height: number;
  seed: number;
  to: [number, number];
  sha256: string;
  pixels?: string;
}

test("resizing gives Pillow's bytes", async () => {
  const cases = vectorCases<ResizeCase>("resize");
  expect(cases.length).toBeGreaterThan(200);
  for (const { width, height, seed, to, sha256: digest, pixels } of cases) {
    const image = { width, height, channels: 3, data: noise(width, height, seed) };
    const found = resize(image, ...to);
    const name = `${width} x ${height} to ${to}`;
    if (pixels) expect(Buffer.from(found).toString("hex"), name).toBe(pixels);
    expect(await sha256(Uint8Array.from(found)), name).toBe(digest);
  }
});

interface PreprocessCase {
  width: number;
  height: number;
  seed?: number;
  resize_shorter_side: number;
  crop_size: number;
  resized?: [number, number];
  sha256?: string;
  refused?: string;
}

test("preprocessing gives Python's bytes, and refuses what Python refuses", async () => {
  const cases = vectorCases<PreprocessCase>("preprocess");
  expect(cases.length).toBeGreaterThan(100);
  for (const { width, height, seed, refused, resized, ...facts } of cases) {
    const name = `${width} x ${height}`;
    const input = facts as unknown as InputFacts;
    if (seed === undefined) {
      const check = () => {
        checkSize(width, height);
        resizedSize(width, height, facts.resize_shorter_side);
      };
      expect(check, name).toThrow(new SepViTError(refused as string, "size"));
      continue;
    }
    const image = { width, height, channels: 3, data: noise(width, height, seed) };
    if (refused) {
      expect(() => preprocess(image, input), name).toThrow(new SepViTError(refused, "size"));
    } else {
      expect(resizedSize(width, height, facts.resize_shorter_side), name).toEqual(resized);
      expect(await sha256(Uint8Array.from(preprocess(image, input))), name).toBe(facts.sha256);
    }
  }
});

test("grey and transparency are read as RGB", () => {
  const grey = Uint8Array.of(10, 20, 30, 40);
  const rgb = Uint8Array.from(grey).reduce<number[]>((all, v) => all.concat(v, v, v), []);
  const rgba = [...grey].flatMap((v, i) => [v, v, v, i]);
  const of = (channels: number, data: Iterable<number>) =>
    resize({ width: 2, height: 2, channels, data: Uint8Array.from(data) }, 5, 3);
  expect(of(1, grey)).toEqual(of(3, rgb));
  expect(of(4, rgba)).toEqual(of(3, rgb));
});

test("the input tensor has the layout and dtype of the manifest", () => {
  const pixels = Uint8Array.from({ length: 12 }, (_, i) => i);
  const nchw = { crop_size: 2, layout: "NCHW", dtype: "float32" } as InputFacts;
  expect([...toInput(pixels, nchw)]).toEqual([0, 3, 6, 9, 1, 4, 7, 10, 2, 5, 8, 11]);
  expect(toInput(pixels, nchw)).toBeInstanceOf(Float32Array);
  expect(toInput(pixels, { ...nchw, layout: "NHWC", dtype: "uint8" })).toEqual(pixels);
});
