/** ONNX Runtime in the browser: WebAssembly with SIMD, or WebGPU. */

import asyncifyMjs from "onnxruntime-web/ort-wasm-simd-threaded.asyncify.mjs?url";
import asyncifyWasm from "onnxruntime-web/ort-wasm-simd-threaded.asyncify.wasm?url";
import wasmMjs from "onnxruntime-web/ort-wasm-simd-threaded.mjs?url";
import wasmWasm from "onnxruntime-web/ort-wasm-simd-threaded.wasm?url";
import type { EngineKind } from "../core/engine";
import { type Execution, type OnnxRuntime, onnxRuntime } from "../core/onnxruntime";

export interface EngineSettings {
  execution: Execution;
  /** Threads of the WebAssembly build. More than one needs a cross-origin isolated page. */
  threads: number;
}

/** Load the runtime's build for these settings, once per worker. */
export async function loadRuntime(settings: EngineSettings): Promise<EngineKind> {
  const webgpu = settings.execution === "webgpu";
  // Each build is a separate file: the 27 MB of WebGPU are downloaded only if it is chosen.
  const ort: OnnxRuntime = webgpu
    ? await import("onnxruntime-web/webgpu")
    : await import("onnxruntime-web/wasm");
  const absolute = (url: string) => new URL(url, self.location.href).href;
  ort.env.wasm.wasmPaths = webgpu
    ? { mjs: absolute(asyncifyMjs), wasm: absolute(asyncifyWasm) }
    : { mjs: absolute(wasmMjs), wasm: absolute(wasmWasm) };
  ort.env.wasm.numThreads = settings.threads;
  ort.env.logLevel = "error"; // errors are thrown as well
  return onnxRuntime(ort, settings.execution);
}
