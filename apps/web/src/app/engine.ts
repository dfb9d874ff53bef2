/** ONNX Runtime in the browser: WebAssembly with SIMD, or WebGPU. */

import type { InferenceSession, Tensor } from "onnxruntime-web";
import asyncifyMjs from "onnxruntime-web/ort-wasm-simd-threaded.asyncify.mjs?url";
import asyncifyWasm from "onnxruntime-web/ort-wasm-simd-threaded.asyncify.wasm?url";
import wasmMjs from "onnxruntime-web/ort-wasm-simd-threaded.mjs?url";
import wasmWasm from "onnxruntime-web/ort-wasm-simd-threaded.wasm?url";
import type { EngineKind, InferenceEngine } from "../core/engine";
import { SepViTError, sentence } from "../core/errors";
import { answerOutputs, type Manifest } from "../core/manifest";
import type { Package } from "../core/package";

export type Execution = "wasm" | "webgpu";

export interface EngineSettings {
  execution: Execution;
  /** Threads of the WebAssembly build. More than one needs a cross-origin isolated page. */
  threads: number;
}

type Runtime = typeof import("onnxruntime-web");

/** Load the runtime's build for these settings, once per worker. */
export async function onnxRuntime(settings: EngineSettings): Promise<EngineKind> {
  const webgpu = settings.execution === "webgpu";
  // Each build is a separate file: the 27 MB of WebGPU are downloaded only if it is chosen.
  const ort: Runtime = webgpu
    ? await import("onnxruntime-web/webgpu")
    : await import("onnxruntime-web/wasm");
  const absolute = (url: string) => new URL(url, self.location.href).href;
  ort.env.wasm.wasmPaths = webgpu
    ? { mjs: absolute(asyncifyMjs), wasm: absolute(asyncifyWasm) }
    : { mjs: absolute(wasmMjs), wasm: absolute(wasmWasm) };
  ort.env.wasm.numThreads = settings.threads;
  ort.env.logLevel = "error"; // errors are thrown as well
  const version = ort.env.versions.web ?? ort.env.versions.common;
  return {
    target: "onnxruntime",
    version,
    load: async (pack) => {
      const session = await createSession(ort, pack, settings);
      return new OnnxRuntimeEngine(ort, session, pack.manifest, version, settings);
    },
  };
}

async function createSession(ort: Runtime, pack: Package, { execution }: EngineSettings) {
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
  readonly execution: Execution;
  readonly threads: number | null;

  constructor(
    private readonly ort: Runtime,
    private readonly session: InferenceSession,
    private readonly manifest: Manifest,
    readonly version: string,
    settings: EngineSettings,
  ) {
    this.execution = settings.execution;
    this.threads = settings.execution === "wasm" ? settings.threads : null;
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
