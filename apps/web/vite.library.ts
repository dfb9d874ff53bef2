import { join } from "node:path";
import { defineConfig } from "vite";
import library from "./library/package.json" with { type: "json" };

/** The core as an npm package: one module, its libraries left to npm. */
export default defineConfig({
  publicDir: false,
  build: {
    target: "es2022",
    outDir: join(import.meta.dirname, "library/dist"),
    emptyOutDir: true,
    minify: false,
    lib: { entry: "src/core/index.ts", formats: ["es"], fileName: "index" },
    rolldownOptions: { external: Object.keys(library.dependencies) },
  },
});
