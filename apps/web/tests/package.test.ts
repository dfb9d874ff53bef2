import { expect, test } from "vitest";
import { checkTarget, inRange, Session } from "../src/core/engine";
import { SepViTError } from "../src/core/errors";
import { folderName, Package } from "../src/core/package";
import { type Edit, edited, MemoryFolder, vectorCases } from "./vectors";

interface PackageCase {
  name: string;
  edits: Edit[];
  kind: string | null;
  mentions: string[];
  omits?: string[];
}

// A package here is bytes in memory: it cannot have links.
const cases = vectorCases<PackageCase>("packages").filter(
  ({ edits }) => !edits.some(({ op }) => op === "link"),
);

test.each(cases)("package: $name", async ({ edits, kind, mentions, omits }) => {
  const folder = await edited(edits);
  if (kind === null) {
    expect((await Package.open(folder)).labels).toEqual(["red", "grün", "blue", "grey"]);
    return;
  }
  const error = await Package.open(folder).then(
    () => null,
    (thrown: unknown) => thrown as SepViTError,
  );
  expect(error).toBeInstanceOf(SepViTError);
  expect(error?.kind).toBe(kind);
  for (const word of mentions) expect(error?.message).toContain(word);
  for (const word of omits ?? []) expect(error?.message).not.toContain(word);
});

test.each(vectorCases<PackageCase>("sessions"))("session: $name", async (c) => {
  const pack = await Package.open(await edited(c.edits));
  const kind = {
    target: "onnxruntime",
    version: "1.29",
    load: () => Promise.reject(new Error("it was loaded")),
  };
  const error = await Session.open(pack, kind).catch((thrown: unknown) => thrown as SepViTError);
  expect(error).toMatchObject({ kind: c.kind });
  for (const word of c.mentions) expect((error as Error).message).toContain(word);
});

test("an untouched package fits", async () => {
  const pack = await Package.open(MemoryFolder.tiny());
  checkTarget(pack.manifest, pack.name, { target: "onnxruntime", version: "1.30.0" });
  expect(pack.size).toBe(309);
});

test.each(
  vectorCases<{ version: string; minimum: string; below: string; app: boolean }>("versions"),
)("$version in $minimum to $below: $app", ({ version, minimum, below, app }) => {
  expect(inRange(version, minimum, below)).toBe(app);
});

test.each([
  ["lite/manifest.json", "x", "lite"],
  ["a/lite v1/manifest.json", "x", "lite v1"],
  ["manifest.json", "my package", "my package"],
  ["manifest.json", "..", "package"],
  ["manifest.json", "", "package"],
])("%s in %s is the package %s", (manifest, archive, name) => {
  expect(folderName(manifest, archive)).toBe(name);
});

test.each([
  "../manifest.json",
  "./manifest.json",
  "a/../manifest.json",
  "../a/manifest.json",
  "/manifest.json",
  "a//manifest.json",
])("%s leaves the archive", (manifest) => {
  expect(() => folderName(manifest, "x")).toThrow("which leaves the folder");
});
