import { defineConfig } from "@playwright/test";

// Made by tests/apps/test_web.py: the built page, a package, photos, and what Python answers.
const FOLDER = process.env.E2E_FOLDER ?? "";
const PORT = Number(process.env.PORT ?? 4173);

export default defineConfig({
  testDir: "e2e",
  outputDir: "test-results",
  workers: 1,
  timeout: 120_000,
  expect: { timeout: 60_000 },
  // A cold browser on a loaded machine; a test that needs its second try is reported as flaky.
  retries: process.env.CI ? 1 : 0,
  reporter: [["list"]],
  use: {
    baseURL: `http://localhost:${PORT}/`,
    viewport: { width: 390, height: 844 },
    deviceScaleFactor: 2,
    launchOptions: {
      // The system's browser: playwright-core downloads none.
      executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
      args: [
        "--no-sandbox",
        "--use-fake-device-for-media-stream",
        "--enable-unsafe-webgpu",
        "--use-webgpu-adapter=swiftshader",
      ],
    },
  },
  webServer: {
    // Not through npx, which would leave the server behind when it is ended.
    command: `exec node node_modules/vite/bin/vite.js preview --strictPort --port ${PORT} --outDir ${FOLDER}/dist`,
    url: `http://localhost:${PORT}/`,
    reuseExistingServer: false,
  },
});
