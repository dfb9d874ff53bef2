import { expect, test } from "vitest";
import type { SepViTError } from "../src/core/errors";
import { sha256 } from "../src/core/hash";
import { SIGNATURE, verifySignature } from "../src/core/signature";
import { type Edit, edited, vectorCases } from "./vectors";

interface SignatureCase {
  name: string;
  keys: string;
  now: string;
  edits: Edit[];
  kind: string | null;
  mentions: string[];
}

test.each(vectorCases<SignatureCase>("signatures"))("signature: $name", async (c) => {
  const { files } = await edited(c.edits);
  const signature = files.get(SIGNATURE) ?? null;
  files.delete(SIGNATURE);
  const digests = new Map<string, string>();
  for (const [path, bytes] of files) digests.set(path, await sha256(bytes));
  const verified = verifySignature("package", signature, digests, c.keys, new Date(c.now));
  const error = await verified.then(
    () => null,
    (thrown: unknown) => thrown as SepViTError,
  );
  expect(error?.kind ?? null).toBe(c.kind);
  for (const word of c.mentions) expect(error?.message).toContain(word);
});

test.each(["", "a key", "-----BEGIN PUBLIC KEY-----AAAA-----END PUBLIC KEY-----"])(
  "keys that are none are refused: %s",
  async (keys) => {
    const { edits } = vectorCases<SignatureCase>("signatures")[0] as SignatureCase;
    const signature = (await edited(edits)).files.get(SIGNATURE) ?? null;
    await expect(verifySignature("package", signature, new Map(), keys)).rejects.toThrow("key");
  },
);
