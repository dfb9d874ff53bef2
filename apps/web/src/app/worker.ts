/** The worker in which a package is opened and runs, so that the page stays quick. */

import * as Comlink from "comlink";
import { type Answer, answerOf, inputOf } from "../core/answers";
import {
  type BenchmarkOptions,
  type Measurements,
  measure,
  type Progress,
} from "../core/benchmark";
import { Session } from "../core/engine";
import { SepViTError } from "../core/errors";
import { sha256 } from "../core/hash";
import { inputSize, type Manifest } from "../core/manifest";
import type { Pixels } from "../core/pixels";
import type { Size } from "../core/postprocess";
import { type SelfCheck, selfCheck } from "../core/selfcheck";
import { decodeImage, readBitmap } from "./decode";
import { type EngineSettings, loadRuntime } from "./engine";
import { openPackage, type PackageEntry } from "./packages";

export interface Opened {
  manifest: Manifest;
  labels: readonly string[];
  /** Size of the model files in bytes. */
  size: number;
  runtime: { name: string; version: string; execution: string; threads: number | null };
  loadMs: number;
}

/** An answer to an image, and the time that it took. */
export interface Answered {
  answer: Answer;
  /** Size of the upright image. */
  width: number;
  height: number;
  preprocessMs: number;
  inferenceMs: number;
}

export interface PhotoAnswer extends Answered {
  decodeMs: number;
  /** The model's input: RGB, row by row. */
  pixels: Uint8Array;
  inputSize: Size;
  /** SHA-256 of these pixels, to compare with Python. */
  sha256: string;
}

let session: Session | undefined;
let stopping = false;

function loaded(): Session {
  if (!session) throw new SepViTError("no package is open; choose one");
  return session;
}

async function answered(image: Pixels) {
  const { pack } = loaded();
  const start = performance.now();
  const { pixels, content } = inputOf(image, pack.manifest);
  const middle = performance.now();
  const outputs = await loaded().run(pixels);
  const end = performance.now();
  return {
    pixels,
    answer: answerOf(outputs, pack.manifest, pack.labels, image, content),
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
    const pack = await openPackage(entry);
    const start = performance.now();
    session = await Session.open(pack, await loadRuntime(settings));
    const { name, version, execution, threads } = session.engine;
    return {
      manifest: pack.manifest,
      labels: pack.labels,
      size: pack.size,
      runtime: { name, version, execution, threads },
      loadMs: performance.now() - start,
    };
  },

  async answerFile(file: Blob, name: string): Promise<PhotoAnswer> {
    const start = performance.now();
    const image = await decodeImage(file, name);
    const decodeMs = performance.now() - start;
    const found = await answered(image);
    const size = inputSize(loaded().pack.manifest);
    const digest = await sha256(Uint8Array.from(found.pixels));
    return { ...found, decodeMs, inputSize: size, sha256: digest };
  },

  async answerFrame(frame: ImageBitmap): Promise<Answered> {
    try {
      const { pixels: _, ...found } = await answered(readBitmap(frame));
      return found;
    } finally {
      frame.close();
    }
  },

  /** Time one run on golden pixels: the first after opening, for the cold start. */
  async runOnce(): Promise<number> {
    const { width, height } = inputSize(loaded().pack.manifest);
    const pixels = loaded().pack.golden().get("pixels")?.data as Uint8Array;
    const start = performance.now();
    await loaded().run(pixels.subarray(0, width * height * 3));
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
