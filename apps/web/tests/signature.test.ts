import { expect, test } from "vitest";
import type { SepViTError } from "../src/core/errors";
import { sha256 } from "../src/core/hash";
import { Package } from "../src/core/package";
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

test("a package is opened with trusted keys only if it is signed", async () => {
  const cases = vectorCases<SignatureCase>("signatures");
  const [valid] = cases as [SignatureCase];
  const other = cases.find(({ name }) => name === "another key") as SignatureCase;
  const { name, files } = await edited(valid.edits);
  const folder = { name, read: async (path: string) => files.get(path) ?? null };
  expect((await Package.open(folder, valid.keys)).manifest.task).toBe("classification");
  await expect(Package.open(folder, other.keys)).rejects.toMatchObject({ kind: "untrusted" });
  await expect(Package.open(folder, "")).rejects.toThrow("no trusted public key");
  files.delete(SIGNATURE);
  await expect(Package.open(folder, valid.keys)).rejects.toMatchObject({ kind: "unsigned" });
  await Package.open(folder);
});
