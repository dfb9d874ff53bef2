/** ONNX Runtime Web as an engine: the caller loads the runtime's build, and passes it on. */

import type { InferenceSession, Tensor } from "onnxruntime-web";
import type { EngineKind, InferenceEngine } from "./engine";
import { SepViTError, sentence } from "./errors";
import { answerOutputs, type Manifest } from "./manifest";
import type { Package } from "./package";

/** What `import * as ort from "onnxruntime-web"` gives, in any of its builds. */
export type OnnxRuntime = Pick<
  typeof import("onnxruntime-web"),
  "InferenceSession" | "Tensor" | "env"
>;
export type Execution = "wasm" | "webgpu";

/** Return the engine for packages of the target `onnxruntime`. */
export function onnxRuntime(ort: OnnxRuntime, execution: Execution = "wasm"): EngineKind {
  const version = ort.env.versions.web ?? ort.env.versions.common;
  return {
    target: "onnxruntime",
    version,
    load: async (pack) => {
      const session = await createSession(ort, pack, execution);
      return new OnnxRuntimeEngine(ort, session, pack.manifest, version, execution);
    },
  };
}

async function createSession(ort: OnnxRuntime, pack: Package, execution: Execution) {
  const model = pack.modelFiles.find(([path]) => path.endsWith(".onnx"));
  if (!model)
    throw new SepViTError(
      `the .onnx file is missing from ${pack.name}; export it again`,
      "missing",
    );
  const externalData = pack.modelFiles
    .filter((file) => file !== model)
    .map(([path, data]) => ({ path, data }));
  try {
    return await ort.InferenceSession.create(model[1], {
      executionProviders: [execution],
      graphOptimizationLevel: "all",
      logSeverityLevel: 3,
      externalData,
    });
  } catch (error) {
    const advice =
      execution === "webgpu"
        ? "choose WebAssembly in the benchmark's settings"
        : "export the package again";
    throw new SepViTError(`ONNX Runtime cannot load ${pack.name}, ${advice}: ${sentence(error)}`);
  }
}

class OnnxRuntimeEngine implements InferenceEngine {
  readonly name = "onnxruntime-web";
  readonly threads: number | null;

  constructor(
    private readonly ort: OnnxRuntime,
    private readonly session: InferenceSession,
    private readonly manifest: Manifest,
    readonly version: string,
    readonly execution: Execution,
  ) {
    this.threads = execution === "wasm" ? (ort.env.wasm.numThreads ?? null) : null;
  }

  async run(values: Uint8Array | Float32Array): Promise<Float32Array[]> {
    const { input } = this.manifest;
    const tensor: Tensor =
      values instanceof Uint8Array
        ? new this.ort.Tensor("uint8", values, input.shape)
        : new this.ort.Tensor("float32", values, input.shape);
    const names = answerOutputs(this.manifest).map(({ name }) => name);
    const outputs = await this.session.run({ [input.name]: tensor }, names);
    return Promise.all(names.map((name) => outputs[name]?.getData() as Promise<Float32Array>));
  }

  async close(): Promise<void> {
    await this.session.release();
  }
}
