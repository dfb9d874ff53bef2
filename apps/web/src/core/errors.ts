/** What kind of refusal an error is; the shared test vectors name the same kinds. */
export type Refusal =
  | "no-manifest"
  | "damaged-manifest"
  | "newer-schema"
  | "older-schema"
  | "digest"
  | "task"
  | "invalid"
  | "path"
  | "missing"
  | "changed"
  | "added"
  | "unsigned"
  | "damaged-signature"
  | "untrusted"
  | "expired"
  | "target"
  | "runtime"
  | "size"
  | "image"
  | "tensors"
  | "other";

/** Something a user can act on: one sentence that says what is wrong and what to do. */
export class SepViTError extends Error {
  override name = "SepViTError";

  constructor(
    message: string,
    readonly kind: Refusal = "other",
  ) {
    super(message);
  }
}

/** The sentence to show for whatever was thrown. */
export function sentence(error: unknown): string {
  const message = error instanceof Error ? error.message : String(error);
  return message.replace(/\.+$/, "");
}
