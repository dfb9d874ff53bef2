import { defineConfig } from "vitest/config";

// Generous: nothing here tests how quick a machine is.
export default defineConfig({ test: { include: ["tests/*.test.ts"], testTimeout: 120_000 } });
