import { createHash } from "node:crypto";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join, relative } from "node:path";
import { defaultClientConditions, defineConfig, type Plugin } from "vite";
import app from "./package.json" with { type: "json" };

// The tests build with packages of their own.
const PUBLIC = process.env.PUBLIC_DIR ?? join(import.meta.dirname, "public");
const PACKAGES = join(PUBLIC, "packages");

/** Packages that the app brings along, as `python -m sepvit_edge.bundle` has put them there. */
function bundledPackages(): string[] {
  const index = join(PACKAGES, "index.json");
  if (!existsSync(index)) return [];
  const { packages } = JSON.parse(readFileSync(index, "utf8"));
  return packages.map(({ folder }: { folder: string }) => folder);
}

/** The keys of which one must have signed every package; null if signatures are not asked for. */
function trustedKeys(): string | null {
  const file = join(PACKAGES, "trust.pem");
  return existsSync(file) ? readFileSync(file, "utf8") : null;
}

function filesBelow(folder: string): string[] {
  if (!existsSync(folder)) return [];
  return readdirSync(folder, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name))
    .sort();
}

/**
 * Tell the service worker which files to keep, each with a revision, so that an update fetches only
 * what has changed. The WebGPU build of the runtime is kept once somebody has used it.
 */
function precache(): Plugin {
  const revision = (data: string | Uint8Array) =>
    createHash("sha256").update(data).digest("hex").slice(0, 16);
  return {
    name: "precache",
    apply: "build",
    generateBundle: {
      order: "post",
      handler(_, bundle) {
        const files: Record<string, string> = {};
        for (const path of filesBelow(PUBLIC)) {
          files[relative(PUBLIC, path).replaceAll("\\", "/")] = revision(readFileSync(path));
        }
        for (const [name, item] of Object.entries(bundle)) {
          if (name === "sw.js" || /asyncify|webgpu/.test(name)) continue;
          files[name === "index.html" ? "./" : name] = revision(
            item.type === "chunk" ? item.code : item.source,
          );
        }
        const worker = bundle["sw.js"];
        if (worker?.type !== "chunk") throw new Error("the service worker is missing");
        worker.code = worker.code.replace("PRECACHE_FILES", JSON.stringify(files));
      },
    },
  };
}

/** Threads need shared memory, which browsers allow on isolated pages only. */
const isolation = {
  "Cross-Origin-Opener-Policy": "same-origin",
  "Cross-Origin-Embedder-Policy": "require-corp",
};

export default defineConfig({
  base: "./",
  publicDir: PUBLIC,
  // The runtime's WebAssembly stays in files of its own, which its threads load again.
  resolve: { conditions: ["onnxruntime-web-use-extern-wasm", ...defaultClientConditions] },
  define: {
    APP_VERSION: JSON.stringify(app.version),
    BUNDLED_PACKAGES: JSON.stringify(bundledPackages()),
    TRUSTED_KEYS: JSON.stringify(trustedKeys()),
  },
  plugins: [precache()],
  worker: { format: "es" },
  optimizeDeps: { exclude: ["onnxruntime-web"] },
  server: { headers: isolation, fs: { allow: [join(import.meta.dirname, "../..")] } },
  // The service worker isolates the page; a server need not.
  preview: { headers: {} },
  build: {
    target: "es2022",
    // Assets stay files: the service worker and the runtime find them by address.
    assetsInlineLimit: 0,
    rolldownOptions: {
      input: { index: "index.html", sw: "src/sw.ts" },
      output: {
        entryFileNames: (chunk) => (chunk.name === "sw" ? "sw.js" : "assets/[name]-[hash].js"),
      },
    },
  },
});
