/** The deployable folder, checked byte for byte before anything of it is used. */

import { SepViTError } from "./errors";
import { sha256 } from "./hash";
import {
  GOLDEN,
  LABELS,
  MANIFEST,
  type Manifest,
  type PackageFile,
  readManifest,
} from "./manifest";
import { readSafetensors, type Tensor } from "./safetensors";
import { SIGNATURE, verifySignature } from "./signature";

type Bytes = Uint8Array<ArrayBuffer>;

/** Where a package's files come from: the app's own assets, an imported folder, a zip file. */
export interface PackageFolder {
  /** What to call it in an error. */
  name: string;
  /** A file by its path inside the folder; null where there is none. */
  read(path: string): Promise<Bytes | null>;
}

/**
 * Return the name of the folder of a manifest in an archive, or the archive's own name.
 *
 * The name becomes a part of an address, in which "." and ".." are other folders.
 */
export function folderName(manifest: string, archive: string): string {
  const folders = manifest.split("/").slice(0, -1);
  if (folders.some((part) => ["", ".", ".."].includes(part))) {
    throw new SepViTError(
      `${archive} names the file "${manifest}", which leaves the folder; zip the package again`,
      "path",
    );
  }
  return folders.at(-1) ?? (/^\.*$/.test(archive) ? "package" : archive);
}

/** A package whose every byte was checked. */
export class Package {
  private constructor(
    readonly name: string,
    readonly manifest: Manifest,
    readonly labels: readonly string[],
    private readonly files: Map<string, Bytes>,
  ) {}

  /**
   * Read a package into memory.
   *
   * @param trust public keys in PEM, of which one must have signed it. Without: a signature is not
   *   looked at. A file that the manifest does not list is neither read nor found.
   * @throws SepViTError if it is damaged, not for this version, or not signed as asked for; the
   *   sentence says why.
   */
  static async open(folder: PackageFolder, trust?: string): Promise<Package> {
    const { name } = folder;
    const bytes = await folder.read(MANIFEST);
    if (!bytes)
      throw new SepViTError(`${name} is not a package: ${MANIFEST} is missing`, "no-manifest");
    const manifest = await readManifest(bytes, name);
    const files = new Map<string, Bytes>();
    for (const file of manifest.files) {
      files.set(file.path, await readChecked(folder, file));
    }
    if (trust !== undefined) {
      const digests = new Map(manifest.files.map(({ path, sha256 }) => [path, sha256]));
      digests.set(MANIFEST, await sha256(bytes));
      await verifySignature(name, await folder.read(SIGNATURE), digests, trust);
    }
    for (const path of [LABELS, GOLDEN]) {
      if (!files.has(path)) {
        throw new SepViTError(
          `${name} is incomplete: ${path} is missing; export it again`,
          "missing",
        );
      }
    }
    const labels = new TextDecoder()
      .decode(files.get(LABELS))
      .replace(/\r?\n$/, "")
      .split(/\r?\n/);
    if (labels.length !== manifest.model.num_classes) {
      throw new SepViTError(
        `${name} has ${labels.length} labels for ${manifest.model.num_classes} classes; export it again`,
        "invalid",
      );
    }
    return new Package(name, manifest, labels, files);
  }

  /** The model's own files, by path. */
  get modelFiles(): [string, Bytes][] {
    return [...this.files].filter(([path]) => path !== LABELS && path !== GOLDEN);
  }

  /** Bytes of the model files. */
  get size(): number {
    return this.modelFiles.reduce((sum, [, bytes]) => sum + bytes.length, 0);
  }

  /** The golden vectors: `image.0` ..., `pixels`, and both models' logits. */
  golden(): Map<string, Tensor> {
    return readSafetensors(this.files.get(GOLDEN) as Bytes);
  }
}

async function readChecked(folder: PackageFolder, file: PackageFile): Promise<Bytes> {
  const { path } = file;
  const parts = path.split("/");
  if (path === "" || path.startsWith("/") || parts.includes("..") || path.includes("\\")) {
    throw new SepViTError(
      `${folder.name} names the file "${path}", which leaves the folder`,
      "path",
    );
  }
  const bytes = await folder.read(path);
  if (!bytes) {
    throw new SepViTError(
      `${folder.name} is incomplete: ${path} is missing; export it again`,
      "missing",
    );
  }
  if (bytes.length !== file.size || (await sha256(bytes)) !== file.sha256) {
    throw new SepViTError(
      `${folder.name}/${path} was changed since it was exported; export it again`,
      "changed",
    );
  }
  return bytes;
}
