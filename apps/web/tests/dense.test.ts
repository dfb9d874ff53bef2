import { expect, test } from "vitest";
import { answerOf, colourOf, inputOf } from "../src/core/answers";
import { type InferenceEngine, Session } from "../src/core/engine";
import type { SepViTError } from "../src/core/errors";
import { inputSize } from "../src/core/manifest";
import { Package } from "../src/core/package";
import type { Pixels } from "../src/core/pixels";
import { boxBack, overlap } from "../src/core/postprocess";
import { goldenImage, keptStep, selfCheck } from "../src/core/selfcheck";
import { type GoldenEdit, MemoryFolder, restate, tampered, vectorCases } from "./vectors";

/** The tiny dense packages' models, in TypeScript: rows of weights on the mean colours of squares. */
class Colours implements InferenceEngine {
  name = "by hand";
  version = "1.30.0";
  execution = "wasm";
  threads = 1;

  constructor(private readonly task: string) {}

  async run(input: Uint8Array | Float32Array): Promise<Float32Array[]> {
    if (this.task === "segmentation") {
      const rows = [
        [4, -2, -2],
        [-2, 4, -2],
        [-2, -2, 4],
        [1, 1, 1],
      ];
      const squares = means(input, 4);
      const bias = [0, 0, 0, -4];
      return [Float32Array.from(rows.flatMap((row, i) => squares.map(dot(row, 64, bias[i] ?? 0))))];
    }
    const squares = means(input, 8);
    const logits = [
      [4, -2, -2, -3],
      [-2, 4, -2, -3],
      [-2, -2, 4, -3],
      [4, -2, -2, -4],
      [-2, 4, -2, -4],
      [-2, -2, 4, -4],
    ];
    const deltas = [
      [1, 0, 0, -0.25],
      [0, 1, 0, -0.25],
      [1, 1, 0, -0.5],
      [0, 1, 1, -0.5],
      [0, 0, 1, 0],
      [1, 0, 0, -0.25],
      [1, 0, 1, -0.25],
      [0, 1, 0, 0],
    ];
    const all = (rows: number[][], divisor: number) =>
      Float32Array.from(
        squares.flatMap((mean) => rows.map((row) => dot(row, divisor, row[3] ?? 0)(mean))),
      );
    return [all(logits, 64), all(deltas, 512)];
  }

  async close(): Promise<void> {}
}

function dot(row: number[], divisor: number, bias: number) {
  const [r, g, b] = row as [number, number, number];
  return ([x, y, z]: [number, number, number]) => (r * x + g * y + b * z) / divisor + bias;
}

/** Mean colours of the squares of a 48 x 32 input, row by row. */
function means(input: ArrayLike<number>, side: number): [number, number, number][] {
  const found: [number, number, number][] = [];
  for (let top = 0; top < 32; top += side) {
    for (let left = 0; left < 48; left += side) {
      const sums: [number, number, number] = [0, 0, 0];
      for (let i = 0; i < side * side; i++) {
        const at = 3 * ((top + Math.floor(i / side)) * 48 + left + (i % side));
        for (let c = 0; c < 3; c++) sums[c] = (sums[c] as number) + (input[at + c] as number);
      }
      found.push(sums.map((sum) => sum / (side * side)) as [number, number, number]);
    }
  }
  return found;
}

function opened(pack: Package): Promise<Session> {
  const load = async () => new Colours(pack.manifest.task);
  return Session.open(pack, { target: "onnxruntime", version: "1.30.0", load });
}

interface DenseCase {
  name: string;
  package: string;
  edit: GoldenEdit | null;
  passed: boolean;
  fails_at: string | null;
  output?: string;
  image?: number;
  different_values?: number;
  max_difference?: number;
  sqnr_db?: number;
  agreement?: number;
}

test.each(vectorCases<DenseCase>("dense_self_check"))("self-check: $name", async (c) => {
  const found = await selfCheck(await opened(await tampered(c.package, c.edit)));
  expect([found.failsAt, found.passed, found.images]).toEqual([c.fails_at, c.passed, 3]);
  if (c.fails_at === "pixels") {
    const { image, different_values, max_difference } = c;
    expect(found.pixelDifferences).toEqual([
      { image, differentValues: different_values, maxDifference: max_difference },
    ]);
    return;
  }
  if (c.sqnr_db !== undefined) {
    expect(found.sqnrDb).toBeCloseTo(c.sqnr_db, 6);
    expect(found.maxAbsError).toBe(c.max_difference);
  }
  if (c.output) expect([found.output, found.worstImage]).toEqual([c.output, c.image]);
  if (c.agreement !== undefined) expect(found.agreement).toBeCloseTo(c.agreement, 9);
});

test("a device whose outputs are not numbers does not pass", async () => {
  const session = await opened(await tampered("detection", null));
  const { run } = session.engine;
  session.engine.run = async (input) => {
    const [logits, deltas] = (await run.call(session.engine, input)) as [
      Float32Array,
      Float32Array,
    ];
    return [logits.fill(Number.NaN), deltas];
  };
  expect(await selfCheck(session)).toMatchObject({ failsAt: "outputs", output: "classes" });
});

test("an answer is in the image's own pixels", async () => {
  const pack = await tampered("segmentation", null);
  const session = await opened(pack);
  // Blue above, red below, grey padding to its right: 60 x 80 becomes 24 x 32 of 48 x 32.
  const image: Pixels = { width: 60, height: 80, channels: 3, data: new Uint8Array(60 * 80 * 3) };
  for (let i = 0; i < 60 * 80; i++) image.data[3 * i + (i < 60 * 40 ? 2 : 0)] = 250;
  const { pixels, content } = inputOf(image, pack.manifest);
  expect(content).toEqual({ width: 24, height: 32 });
  const answer = answerOf(await session.run(pixels), pack.manifest, pack.labels, image, content);
  if (answer.task !== "segmentation") throw new Error(answer.task);
  expect(answer.map).toHaveLength(60 * 80);
  expect(answer.shares.map(({ label }) => label).sort()).toEqual(["blue", "red"]);
  for (const { share } of answer.shares) expect(Math.abs(share - 0.5)).toBeLessThan(0.05);
  expect([answer.map[0], answer.map[60 * 80 - 1]]).toEqual([2, 0]);
});

test("boxes come back to the image, with labels", async () => {
  const pack = await tampered("detection", null);
  const session = await opened(pack);
  const image = goldenImage(pack.golden(), 0);
  const { pixels, content } = inputOf(image, pack.manifest);
  const answer = answerOf(await session.run(pixels), pack.manifest, pack.labels, image, content);
  if (answer.task !== "detection") throw new Error(answer.task);
  const wanted = pack.golden().get("package.boxes.0")?.data as Float32Array;
  const scores = pack.golden().get("package.scores.0")?.data as Float32Array;
  expect(answer.boxes.map(({ score }) => score)).toEqual([...scores]);
  answer.boxes.forEach(({ box, label, index }, i) => {
    const [a, b, c, d] = wanted.subarray(4 * i);
    expect(overlap(box, boxBack([a, b, c, d] as never, image, content))).toBe(1);
    expect(label).toBe(pack.labels[index]);
  });
});

test.each([
  ["segmentation", "task", (m: Dense) => (m.task = "detection"), "box_class_logits"],
  ["segmentation", "no rule", (m: Dense) => (m.postprocessing = null), "postprocessing"],
  ["segmentation", "stride", (m: Dense) => (m.postprocessing.stride = 8), "shapes"],
  ["segmentation", "fit", (m: Dense) => (m.input.fit = "middle"), "input.fit"],
  ["segmentation", "size", (m: Dense) => (m.model.input_size = null), "input_size"],
  ["segmentation", "classes", (m: Dense) => (m.outputs[0].shape[1] = 3), "shapes"],
  ["detection", "strides", (m: Dense) => (m.postprocessing.strides = [16]), "shapes"],
  ["detection", "a score", (m: Dense) => (m.postprocessing.score_threshold = 2), "postprocessing"],
  ["detection", "deltas", (m: Dense) => m.outputs.pop(), "box_deltas"],
  ["package", "fit", (m: Dense) => (m.input.fit = "whole-top-left"), "input.fit"],
  // biome-ignore lint/suspicious/noExplicitAny: a manifest that may be wrong
] as [string, string, (manifest: any) => void, string][])(
  "%s with another %s is refused",
  async (kind, _, change, word) => {
    const folder = MemoryFolder.tiny(kind);
    await restate(folder, change);
    const error = await Package.open(folder).catch((thrown: unknown) => thrown as SepViTError);
    expect(error).toMatchObject({ kind: "invalid" });
    expect((error as Error).message).toContain(word);
  },
);

// biome-ignore lint/suspicious/noExplicitAny: a manifest that may be wrong
type Dense = any;

test("an output of another length than stated is refused", async () => {
  const session = await opened(await tampered("segmentation", null));
  session.engine.run = async () => [new Float32Array(5)];
  const { width, height } = inputSize(session.pack.manifest);
  const run = session.run(new Uint8Array(3 * width * height));
  await expect(run).rejects.toThrow("does not have the shape 1 x 4 x 8 x 12");
});

test("golden vectors keep every k-th number", () => {
  for (const { numbers, step, kept } of vectorCases<Record<string, number>>("kept")) {
    expect(keptStep(numbers as number)).toBe(step);
    expect(Math.ceil((numbers as number) / (step as number))).toBe(kept);
  }
});

test("classes have the colours that Python draws", () => {
  for (const c of vectorCases<{ class: number; rgb: number[] }>("colours")) {
    expect(colourOf(c.class)).toEqual(c.rgb);
  }
});
