/** Self-check and benchmark. */

import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { Validator } from "@cfworker/json-schema";
import { expect, test } from "@playwright/test";
import schema from "../../../export/profile-2.0.schema.json" with { type: "json" };
import { closed } from "../tests/schema";
import { FOLDER, installed, open, PACKAGE } from "./page";

const validator = new Validator(closed(schema), "2020-12", false);

test("the golden self-check is green", async ({ page }) => {
  await open(page, "check");
  await expect(page.getByText("Same answers as in Python")).toBeVisible();
  await expect(page.locator(".step.good")).toHaveCount(3);
  console.log(await page.locator(".facts").textContent());
  await page.screenshot({ path: join(FOLDER, "screenshots", "check-light.png") });
});

test("the self-check says where a device differs", async ({ page }) => {
  // A browser that rounds differently when it resizes.
  await page.route("**/assets/worker-*.js", async (route) => {
    const response = await route.fetch();
    const body = (await response.text()).replace(">>22,255", ">>22,254");
    await route.fulfill({ response, body });
  });
  await open(page, "check");
  await expect(page.getByText("Resizing differs from Python")).toBeVisible();
  await expect(page.locator(".step.bad")).toContainText("by 1 of 255 at most");
});

async function profile(page: import("@playwright/test").Page, file: string) {
  await expect(page.locator("#profile-document")).toHaveCount(1, { timeout: 300_000 });
  const text = (await page.locator("#profile-document").textContent()) ?? "";
  writeFileSync(join(FOLDER, file), text);
  const document = JSON.parse(text);
  expect(validator.validate(document).errors).toEqual([]);
  return document;
}

test("the benchmark's JSON is a profile document", async ({ page }) => {
  await open(page, "benchmark");
  await page.getByLabel("Runs", { exact: true }).fill("20");
  await page.getByLabel("Sustained, seconds").fill("2");
  await page.getByRole("button", { name: "Start" }).click();
  const document = await profile(page, "profile-wasm.json");
  expect(document).toMatchObject({
    complete: true,
    producer: { name: "web-app" },
    package: { variant: "lite", target: "onnxruntime", precision: "fp32", image_size: 64 },
    runtime: { name: "onnxruntime-web", execution: "wasm", threads: 1 },
    golden: { passed: true, preprocessing_identical: true },
    latency: { runs: 20 },
    cold_start: { starts: 3 },
  });
  expect(document.sustained.points.length).toBeGreaterThan(0);
  expect(document.device.browser).toMatch(/Chrom/);
  await page.screenshot({ path: join(FOLDER, "screenshots", "benchmark-light.png") });
});

test("the address starts a benchmark, with threads once the page is isolated", async ({ page }) => {
  await open(page, "benchmark");
  expect(await page.evaluate(() => crossOriginIsolated)).toBe(false);
  await installed(page);
  await open(page, "benchmark", `?benchmark=${PACKAGE}&runs=10&warm_up=5&threads=2`);
  expect(await page.evaluate(() => crossOriginIsolated)).toBe(true);
  const document = await profile(page, "profile-threads.json");
  expect(document).toMatchObject({ runtime: { threads: 2 }, latency: { runs: 10 } });
});

test("WebGPU gives the same answers, where there is one", async ({ page }) => {
  test.skip(!process.env.E2E_WEBGPU, "slow without a graphics card; E2E_WEBGPU=1 runs it");
  test.setTimeout(600_000);
  await open(page, "benchmark");
  const adapter = await page.evaluate(async () => (await navigator.gpu?.requestAdapter()) != null);
  test.skip(!adapter, "this Chromium does not have a WebGPU adapter");
  await page.getByLabel("Runs on").selectOption("webgpu");
  await page.getByLabel("Runs", { exact: true }).fill("3");
  await page.getByLabel("Warm-up, at most").fill("1");
  await page.getByRole("button", { name: "Start" }).click();
  const document = await profile(page, "profile-webgpu.json");
  expect(document).toMatchObject({ runtime: { execution: "webgpu" }, golden: { passed: true } });
  console.log(`WebGPU: ${document.golden.sqnr_db} dB against Python's package`);
});

test("a benchmark can be stopped", async ({ page }) => {
  await open(page, "benchmark");
  await page.getByLabel("Runs", { exact: true }).fill("100000");
  await page.getByRole("button", { name: "Start" }).click();
  await expect(page.getByText("Timing", { exact: true })).toBeVisible();
  await page.getByRole("button", { name: "Stop" }).click();
  await expect(page.getByRole("alert")).toContainText("was stopped");
  await expect(page.getByRole("button", { name: "Start" })).toBeVisible();
});
