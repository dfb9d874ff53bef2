/** A runtime that runs a package's model, and the session that feeds it. */

import { SepViTError } from "./errors";
import type { Manifest } from "./manifest";
import type { Package } from "./package";
import { toInput } from "./preprocess";

/** A loaded model. */
export interface InferenceEngine {
  /** The runtime's name and version, as the profile document states them. */
  readonly name: string;
  readonly version: string;
  /** What computes: "wasm", "webgpu". */
  readonly execution: string;
  /** Null where the runtime does not take a number. */
  readonly threads: number | null;
  /** Run one batch: the input tensor's values in, the logits of the whole batch out. */
  run(input: Uint8Array | Float32Array): Promise<Float32Array>;
  close(): Promise<void>;
}

/** What an engine can open. */
export interface EngineKind {
  target: string;
  version: string;
  load(pack: Package): Promise<InferenceEngine>;
}

/** A package that is loaded and takes pixels. */
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
   * A package has a fixed batch: the image goes first, the others are black.
   *
   * @param pixels RGB, row by row (`preprocess`).
   * @returns One logit a class.
   */
  async run(pixels: Uint8Array): Promise<Float32Array> {
    const { input, model } = this.pack.manifest;
    const one = toInput(pixels, input);
    const batch = input.shape[0] ?? 1;
    let values = one;
    if (batch > 1) {
      const all = new (one.constructor as new (n: number) => typeof one)(one.length * batch);
      all.set(one);
      values = all;
    }
    return (await this.engine.run(values)).subarray(0, model.num_classes);
  }
}

/** Refuse packages that the engine cannot run. */
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
 * Whether a runtime's version is in a manifest's range.
 *
 * The lower bound counts by major and minor number: packages for phones and browsers have patch
 * releases of their own.
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
