/** The packages: bundled and imported ones. */

import { unzip } from "fflate";
import { SepViTError } from "../core/errors";
import { MANIFEST } from "../core/manifest";
import { folderName, Package, type PackageFolder } from "../core/package";
import { SIGNATURE } from "../core/signature";

type Bytes = Uint8Array<ArrayBuffer>;

export interface PackageEntry {
  name: string;
  /** Absolute address of its folder, with a slash at the end. */
  base: string;
  imported: boolean;
}

/** The folders that public/packages/index.json lists, known when the app is built. */
declare const BUNDLED_PACKAGES: string[];
/** The keys in public/packages/trust.pem, known when the app is built; null if it has none. */
declare const TRUSTED_KEYS: string | null;

/** Imported packages are kept in a separate cache, so that their files have addresses as well. */
const IMPORTED = "imported-packages";
const LARGEST_IMPORT = 2e9;

export function bundledPackages(): PackageEntry[] {
  return BUNDLED_PACKAGES.map((name) => {
    const base = new URL(`packages/${encodeURIComponent(name)}/`, document.baseURI).href;
    return { name, base, imported: false };
  });
}

export async function importedPackages(): Promise<PackageEntry[]> {
  const cache = await caches.open(IMPORTED);
  return (await cache.keys())
    .filter(({ url }) => url.endsWith(`/${MANIFEST}`))
    .map(({ url }) => {
      const base = url.slice(0, -MANIFEST.length);
      return { name: decodeURIComponent(base.split("/").at(-2) ?? ""), base, imported: true };
    });
}

function fileUrl(base: string, path: string): string {
  return base + path.split("/").map(encodeURIComponent).join("/");
}

/** Check and read a package, which a trusted key must have signed if the app has such keys. */
export function openPackage(entry: PackageEntry): Promise<Package> {
  return openFolder(packageFolder(entry));
}

function openFolder(folder: PackageFolder): Promise<Package> {
  return Package.open(folder, TRUSTED_KEYS ?? undefined);
}

/** Return the files of an entry. */
function packageFolder({ name, base, imported }: PackageEntry): PackageFolder {
  return {
    name,
    async read(path) {
      const url = fileUrl(base, path);
      try {
        const response = imported
          ? await (await caches.open(IMPORTED)).match(url)
          : await fetch(url);
        // Some web servers answer a missing file with the start page.
        const isPage = response?.headers.get("content-type")?.startsWith("text/html");
        if (!response?.ok || isPage) return null;
        return new Uint8Array(await response.arrayBuffer());
      } catch {
        throw new SepViTError(`${name}/${path} cannot be fetched; check the connection`);
      }
    },
  };
}

/** Check and keep a package from a zip file or a folder. */
export async function importPackage(files: readonly File[]): Promise<PackageEntry> {
  const [first] = files;
  if (!first) throw new SepViTError("nothing was chosen; choose a package's folder or a zip of it");
  const zipped = files.length === 1 && /\.zip$/i.test(first.name);
  const read = zipped ? await readZip(first) : readFolder(files);
  const paths = [...read.keys()].filter((path) => path.split("/").at(-1) === MANIFEST);
  const manifest = paths.sort((a, b) => a.length - b.length)[0];
  if (manifest === undefined) {
    throw new SepViTError(`${first.name} is not a package: ${MANIFEST} is missing`, "no-manifest");
  }
  const prefix = manifest.slice(0, -MANIFEST.length);
  const name = folderName(manifest, first.name.replace(/\.zip$/i, ""));
  const folder: PackageFolder = {
    name,
    read: async (path) => (await read.get(prefix + path)?.()) ?? null,
  };
  const pack = await openFolder(folder);

  const base = new URL(`imported/${encodeURIComponent(name)}/`, document.baseURI).href;
  const entry = { name, base, imported: true };
  await removePackage(entry);
  const cache = await caches.open(IMPORTED);
  try {
    // The manifest last: a package without one is not listed.
    for (const path of [...pack.manifest.files.map((file) => file.path), SIGNATURE, MANIFEST]) {
      const bytes = await folder.read(path);
      if (bytes) await cache.put(fileUrl(base, path), new Response(bytes));
    }
  } catch {
    await removePackage(entry);
    throw new SepViTError(`not enough storage for ${name}; remove another package first`);
  }
  await navigator.storage?.persist?.();
  return entry;
}

export async function removePackage({ base }: PackageEntry): Promise<void> {
  const cache = await caches.open(IMPORTED);
  for (const request of await cache.keys()) {
    if (request.url.startsWith(base)) await cache.delete(request);
  }
}

type Files = Map<string, () => Promise<Bytes> | Bytes>;

function readFolder(files: readonly File[]): Files {
  return new Map(
    files.map((file) => [
      file.webkitRelativePath || file.name,
      async () => new Uint8Array(await file.arrayBuffer()),
    ]),
  );
}

async function readZip(file: File): Promise<Files> {
  const bytes = new Uint8Array(await file.arrayBuffer());
  let total = 0;
  const unpacked = await new Promise<Record<string, Uint8Array>>((resolve, reject) => {
    const filter = ({ originalSize }: { originalSize: number }) => {
      total += originalSize;
      return total <= LARGEST_IMPORT;
    };
    unzip(bytes, { filter }, (error, data) => (error ? reject(error) : resolve(data)));
  }).catch(() => {
    throw new SepViTError(`${file.name} is not a zip file, or is damaged; zip the package again`);
  });
  if (total > LARGEST_IMPORT) {
    throw new SepViTError(`${file.name} unpacks to more than 2 GB; it is not a package`);
  }
  return new Map(
    Object.entries(unpacked).map(([path, data]) => [path, () => data as Bytes] as const),
  );
}
