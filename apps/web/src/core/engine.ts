/** A runtime that runs a package's model, and the session that feeds it. */

import { SepViTError } from "./errors";
import { answerOutputs, type Manifest } from "./manifest";
import type { Package } from "./package";
import { toInput } from "./preprocess";

/** A loaded model. */
export interface InferenceEngine {
  /** The runtime's name and version, as in the profile document. */
  readonly name: string;
  readonly version: string;
  /** The execution unit: "wasm" or "webgpu". */
  readonly execution: string;
  /** Null if the runtime chooses the number itself. */
  readonly threads: number | null;
  /** Run one batch and return what `answerOutputs` names, each for the whole batch. */
  run(input: Uint8Array | Float32Array): Promise<Float32Array[]>;
  close(): Promise<void>;
}

/** The target and version that an engine opens. */
export interface EngineKind {
  target: string;
  version: string;
  load(pack: Package): Promise<InferenceEngine>;
}

/** A loaded package that takes preprocessed pixels. */
export class Session {
  private constructor(
    readonly pack: Package,
    readonly engine: InferenceEngine,
  ) {}

  /**
   * Load a checked package.
   *
   * @throws SepViTError if it is for another target or another version of the runtime.
   */
  static async open(pack: Package, kind: EngineKind): Promise<Session> {
    checkTarget(pack.manifest, pack.name, kind);
    return new Session(pack, await kind.load(pack));
  }

  /**
   * Run the model on preprocessed pixels.
   *
   * A package has a fixed batch: the image is the first, the others are black.
   *
   * @param pixels RGB, row by row (`inputOf`).
   * @returns The outputs of the image that `answerOutputs` names.
   */
  async run(pixels: Uint8Array): Promise<Float32Array[]> {
    const { manifest } = this.pack;
    const one = toInput(pixels, manifest.input);
    const batch = manifest.input.shape[0] ?? 1;
    let values = one;
    if (batch > 1) {
      const all = new (one.constructor as new (n: number) => typeof one)(one.length * batch);
      all.set(one);
      values = all;
    }
    const outputs = await this.engine.run(values);
    return answerOutputs(manifest).map(({ name, shape }, i) => {
      const numbers = shape.slice(1).reduce((product, side) => product * side, 1);
      const output = outputs[i];
      if (output?.length !== batch * numbers) {
        throw new SepViTError(
          `the model's output ${name} does not have the shape ${shape.join(" x ")}; export it again`,
        );
      }
      return output.subarray(0, numbers);
    });
  }
}

/** Refuse a package that the engine cannot run. */
export function checkTarget(
  manifest: Manifest,
  name: string,
  kind: Pick<EngineKind, "target" | "version">,
): void {
  if (manifest.target !== kind.target) {
    throw new SepViTError(
      `${name} is for ${manifest.target}, this app runs ${kind.target} packages; ` +
        `export it with --target ${kind.target}`,
      "target",
    );
  }
  const { minimum, below } = manifest.runtime;
  if (!inRange(kind.version, minimum, below)) {
    throw new SepViTError(
      `${name} needs ${manifest.runtime.name} ${minimum} or later and older than ${below}, ` +
        `this app has ${kind.version}; export it again`,
      "runtime",
    );
  }
}

/**
 * Return whether a runtime's version is in a manifest's range.
 *
 * The lower bound is compared by major and minor number only, because the runtimes' builds for phones
 * and browsers have other patch releases.
 */
export function inRange(version: string, minimum: string, below: string): boolean {
  return compare(version, minimum, 2) >= 0 && compare(version, below) < 0;
}

function compare(a: string, b: string, parts = 4): number {
  const [x, y] = [a, b].map((text) =>
    text.split(".").map((part) => Number.parseInt(part, 10) || 0),
  );
  for (let i = 0; i < parts; i++) {
    const difference = (x?.[i] ?? 0) - (y?.[i] ?? 0);
    if (difference !== 0) return difference;
  }
  return 0;
}
