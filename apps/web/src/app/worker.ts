/** The worker in which a package is opened and runs, so that the page stays quick. */

import * as Comlink from "comlink";
import {
  type BenchmarkOptions,
  type Measurements,
  measure,
  type Progress,
} from "../core/benchmark";
import { type ClassProbability, topClasses } from "../core/classes";
import { Session } from "../core/engine";
import { SepViTError } from "../core/errors";
import { sha256 } from "../core/hash";
import type { Manifest } from "../core/manifest";
import { Package } from "../core/package";
import type { Pixels } from "../core/pixels";
import { preprocess } from "../core/preprocess";
import { type SelfCheck, selfCheck } from "../core/selfcheck";
import { decodeImage, readBitmap } from "./decode";
import { type EngineSettings, onnxRuntime } from "./engine";
import { type PackageEntry, packageFolder } from "./packages";

export interface Opened {
  manifest: Manifest;
  labels: readonly string[];
  /** Size of the model files in bytes. */
  size: number;
  runtime: { name: string; version: string; execution: string; threads: number | null };
  loadMs: number;
}

export interface Answer {
  classes: ClassProbability[];
  /** Size of the upright image. */
  width: number;
  height: number;
  preprocessMs: number;
  inferenceMs: number;
}

export interface PhotoAnswer extends Answer {
  decodeMs: number;
  /** The model's input: RGB, `side * side * 3`. */
  pixels: Uint8Array;
  side: number;
  /** SHA-256 of these pixels, to compare with Python. */
  sha256: string;
}

let session: Session | undefined;
let stopping = false;

function loaded(): Session {
  if (!session) throw new SepViTError("no package is open; choose one");
  return session;
}

async function answer(image: Pixels) {
  const { pack } = loaded();
  const start = performance.now();
  const pixels = preprocess(image, pack.manifest.input);
  const middle = performance.now();
  const logits = await loaded().run(pixels);
  const end = performance.now();
  return {
    pixels,
    classes: topClasses(logits, pack.labels),
    width: image.width,
    height: image.height,
    preprocessMs: middle - start,
    inferenceMs: end - middle,
  };
}

/** Let messages in. A run of the model blocks them. */
const messages = new MessageChannel();
function letMessagesIn(): Promise<void> {
  return new Promise((resolve) => {
    messages.port1.onmessage = () => resolve();
    messages.port2.postMessage(0);
  });
}

const api = {
  async open(entry: PackageEntry, settings: EngineSettings): Promise<Opened> {
    const pack = await Package.open(packageFolder(entry));
    const start = performance.now();
    session = await Session.open(pack, await onnxRuntime(settings));
    const { name, version, execution, threads } = session.engine;
    return {
      manifest: pack.manifest,
      labels: pack.labels,
      size: pack.size,
      runtime: { name, version, execution, threads },
      loadMs: performance.now() - start,
    };
  },

  async classifyFile(file: Blob, name: string): Promise<PhotoAnswer> {
    const start = performance.now();
    const image = await decodeImage(file, name);
    const decodeMs = performance.now() - start;
    const found = await answer(image);
    const side = loaded().pack.manifest.input.crop_size;
    return { ...found, decodeMs, side, sha256: await sha256(Uint8Array.from(found.pixels)) };
  },

  async classifyFrame(frame: ImageBitmap): Promise<Answer> {
    try {
      const { pixels: _, ...found } = await answer(readBitmap(frame));
      return found;
    } finally {
      frame.close();
    }
  },

  /** Time one run on golden pixels: the first after opening, for the cold start. */
  async runOnce(): Promise<number> {
    const { crop_size: side } = loaded().pack.manifest.input;
    const pixels = loaded().pack.golden().get("pixels")?.data as Uint8Array;
    const start = performance.now();
    await loaded().run(pixels.subarray(0, side * side * 3));
    return performance.now() - start;
  },

  selfCheck(): Promise<SelfCheck> {
    return selfCheck(loaded());
  },

  async measure(
    options: BenchmarkOptions,
    report: (progress: Progress) => void,
  ): Promise<Measurements> {
    stopping = false;
    let reported = 0;
    const tell = async (progress: Progress) => {
      if (performance.now() - reported > 100) {
        reported = performance.now();
        report(progress);
      }
      await letMessagesIn();
    };
    return measure(loaded(), options, tell, () => stopping);
  },

  stop(): void {
    stopping = true;
  },
};

export type WorkerApi = typeof api;

Comlink.expose(api);
