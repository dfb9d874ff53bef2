/** What the npm package offers. */

export {
  type Answer,
  answerOf,
  type ClassShare,
  colourOf,
  inputOf,
  type LabelledBox,
} from "./answers";
export type { ClassProbability } from "./classes";
export { type EngineKind, type InferenceEngine, Session } from "./engine";
export { type Refusal, SepViTError } from "./errors";
export { orient, readOrientation } from "./exif";
export type { Manifest } from "./manifest";
export { type Execution, type OnnxRuntime, onnxRuntime } from "./onnxruntime";
export { Package, type PackageFolder } from "./package";
export type { Pixels } from "./pixels";
export { decodePng, isPng } from "./png";
export { type Corners, mapBack, type Size } from "./postprocess";
export { type SelfCheck, selfCheck } from "./selfcheck";
export { verifySignature } from "./signature";
