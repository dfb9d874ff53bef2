import { Validator } from "@cfworker/json-schema";
import { expect, test } from "vitest";
import schema from "../../../export/profile-2.0.schema.json";
import {
  type BenchmarkOptions,
  measure,
  PROFILE_SCHEMA_VERSION,
  profileDocument,
} from "../src/core/benchmark";
import { type InferenceEngine, Session } from "../src/core/engine";
import { readSafetensors } from "../src/core/safetensors";
import { MINIMUM_AGREEMENT, MINIMUM_SQNR_DB, selfCheck } from "../src/core/selfcheck";
import { closed } from "./schema";
import { type GoldenEdit, tampered, vectorCases } from "./vectors";

/** The tiny package's model, which tells a mean colour, in TypeScript. */
class MeanColour implements InferenceEngine {
  name = "by hand";
  version = "1.30.0";
  execution = "wasm";
  threads = 1;

  async run(input: Uint8Array | Float32Array): Promise<Float32Array[]> {
    const means = [0, 1, 2].map((c) => {
      let sum = 0;
      for (let i = c; i < input.length; i += 3) sum += input[i] as number;
      return sum / (input.length / 3);
    }) as [number, number, number];
    const [r, g, b] = means;
    const rows = [4 * r - 2 * g - 2 * b, 4 * g - 2 * r - 2 * b, 4 * b - 2 * r - 2 * g, r + g + b];
    return [Float32Array.from(rows, (value, i) => value / 64 - (i === 3 ? 5 : 0))];
  }

  async close(): Promise<void> {}
}

const kind = { target: "onnxruntime", version: "1.30.0", load: async () => new MeanColour() };

interface SelfCheckCase {
  name: string;
  edit: GoldenEdit | null;
  passed: boolean;
  fails_at: string | null;
  image?: number;
  different_values?: number;
  max_difference?: number;
  sqnr_db?: number;
  reference_sqnr_db?: number;
}

test.each(vectorCases<SelfCheckCase>("self_check"))("self-check: $name", async (c) => {
  const found = await selfCheck(await Session.open(await tampered("package", c.edit), kind));
  expect(found.passed).toBe(c.passed);
  expect(found.failsAt).toBe(c.fails_at);
  if (c.fails_at === "pixels") {
    const { image, different_values, max_difference } = c;
    expect(found.pixelDifferences).toEqual([
      { image, differentValues: different_values, maxDifference: max_difference },
    ]);
  } else if (c.max_difference !== undefined) {
    expect(found.maxAbsError).toBeCloseTo(c.max_difference, 12);
    if (c.image !== undefined) expect(found.worstImage).toBe(c.image);
  }
  if (c.sqnr_db !== undefined) expect(found.sqnrDb).toBeCloseTo(c.sqnr_db, 6);
  if (c.reference_sqnr_db !== undefined) {
    expect(found.referenceSqnrDb).toBeCloseTo(c.reference_sqnr_db, 6);
  }
});

test("as near as every other language asks for", () => {
  const cases = vectorCases<{
    precision: string;
    minimum_sqnr_db: number;
    minimum_agreement: number;
  }>("minimum_sqnr");
  const stated = (key: "minimum_sqnr_db" | "minimum_agreement") =>
    Object.fromEntries(cases.map((c) => [c.precision, c[key]]));
  expect(MINIMUM_SQNR_DB).toEqual(stated("minimum_sqnr_db"));
  expect(MINIMUM_AGREEMENT).toEqual(stated("minimum_agreement"));
});

const options: BenchmarkOptions = { warmUp: 40, runs: 20, sustainedS: 2.2 };
const facts = {
  appVersion: "0.1.0",
  runtime: { name: "by hand", version: "1", execution: "wasm", threads: 1, settings: {} },
  device: {
    name: "a test",
    model: null,
    architecture: null,
    os: null,
    os_version: null,
    browser: null,
    logical_cores: 2,
  },
  coldStart: {
    starts: 1,
    total_ms: 3,
    import_ms: null,
    load_ms: 2,
    first_run_ms: 1,
    file_cache: "unknown" as const,
  },
  before: null,
  after: { battery_percent: 50, charging: false },
  notMeasured: [{ what: "memory", reason: "The test does not look." }],
};

test("the profile document has the published schema", async () => {
  const pack = await tampered("package", null);
  const steps = new Set<string>();
  const measured = await measure(await Session.open(pack, kind), options, async ({ step }) => {
    steps.add(step);
  });
  const document = profileDocument({ ...facts, pack, measured });
  const validator = new Validator(closed(schema), "2020-12", false);
  const round = JSON.parse(JSON.stringify(document));
  expect(validator.validate(round).errors).toEqual([]);
  expect(round.latency.runs_ms).toHaveLength(20);
  expect(round.sustained.points.length).toBeGreaterThanOrEqual(2);
  expect(round.golden).toMatchObject({ passed: true, sqnr_db: null, images: 3 });
  expect(steps).toEqual(
    new Set(["checking", "warming up", "timing", "preprocessing", "sustained"]),
  );
  // A misspelt field would have been noticed.
  expect(validator.validate({ ...round, latencies: 1 }).valid).toBe(false);
});

test("the profile document states the version that readers read", () => {
  const [current] = vectorCases<{ document: { schema_version: string } }>("profiles");
  expect(PROFILE_SCHEMA_VERSION).toBe(current?.document.schema_version);
});

test("wrong answers are not timed", async () => {
  const pack = await tampered("package", { tensor: "package_logits", offset: 0, values: [99] });
  const timing = measure(await Session.open(pack, kind), options);
  await expect(timing).rejects.toThrow("the self-check fails at the logits");
});

test("a stopped benchmark gives no document", async () => {
  const session = await Session.open(await tampered("package", null), kind);
  const timing = measure(session, options, undefined, () => true);
  await expect(timing).rejects.toThrow("was stopped");
});

test("a batch is filled up with black images", async () => {
  const pack = await tampered("package", null);
  pack.manifest.input.shape[0] = 3;
  const seen: number[] = [];
  const engine = new MeanColour();
  engine.run = async (input) => {
    seen.push(input.length, input[0] as number, input[input.length - 1] as number);
    return [new Float32Array(12).fill(1)];
  };
  const session = await Session.open(pack, { ...kind, load: async () => engine });
  const [logits] = await session.run(new Uint8Array(32 * 32 * 3).fill(7));
  expect(logits).toHaveLength(4);
  expect(seen).toEqual([3 * 32 * 32 * 3, 7, 0]);
});

interface SafetensorsCase {
  name: string;
  hex: string;
  tensors: Record<string, { dtype: string; shape: number[]; values: number[] }> | null;
}

test.each(vectorCases<SafetensorsCase>("safetensors"))("safetensors: $name", ({ hex, tensors }) => {
  const bytes = Uint8Array.from(Buffer.from(hex, "hex"));
  if (tensors === null) {
    expect(() => readSafetensors(bytes)).toThrow(/damaged|not U8 or F32/);
    return;
  }
  const found = Object.fromEntries(
    [...readSafetensors(bytes)].map(([name, { dtype, shape, data }]) => [
      name,
      { dtype, shape, values: [...data] },
    ]),
  );
  expect(found).toEqual(tensors);
});
