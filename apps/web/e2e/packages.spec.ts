/** Packages: bundled, imported, damaged; and the page without a network. */

import { cpSync, mkdtempSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, type Page, test } from "@playwright/test";
import { zipSync } from "fflate";
import { choosePhoto, classes, expected, FOLDER, installed, open, PACKAGE } from "./page";

const TINY = join(import.meta.dirname, "../../../tests/vectors/package");

function tinyCopy(name: string): string {
  const folder = join(mkdtempSync(join(tmpdir(), "sepvit-")), name);
  cpSync(TINY, folder, { recursive: true });
  return folder;
}

async function importFolder(page: Page, folder: string): Promise<void> {
  await page.locator(".picker").click();
  await page.getByLabel("Import folder").setInputFiles(folder);
}

test("a folder is imported, runs, survives a reload, and is removed", async ({ page }) => {
  await open(page, "about");
  await importFolder(page, tinyCopy("mean-colour"));
  await expect(page.getByRole("heading", { name: "Mean colour" })).toBeVisible();
  await page.reload();
  await expect(page.getByRole("heading", { name: "Mean colour" })).toBeVisible();
  await page.getByRole("link", { name: "Self-check" }).click();
  await expect(page.getByText("Same answers as in Python")).toBeVisible();
  await page.locator(".picker").click();
  await page.getByRole("button", { name: "Remove mean-colour" }).click();
  await expect(page.locator("dialog .packages li")).toHaveCount(1);
  await page.getByRole("button", { name: "Close" }).click();
  await expect(page.locator(".picker")).toContainText(PACKAGE);
});

test("a zip file is imported", async ({ page }) => {
  const files = Object.fromEntries(
    readdirSync(TINY).map((name) => [
      `zipped/${name}`,
      new Uint8Array(readFileSync(join(TINY, name))),
    ]),
  );
  await open(page, "about");
  await page.locator(".picker").click();
  await page.getByLabel("Import zip").setInputFiles({
    name: "anything.zip",
    mimeType: "application/zip",
    buffer: Buffer.from(zipSync(files)),
  });
  await expect(page.getByRole("heading", { name: "Mean colour" })).toBeVisible();
  await expect(page.locator(".picker")).toContainText("zipped");
});

test("a damaged package is refused and nothing of it is kept", async ({ page }) => {
  const folder = tinyCopy("damaged");
  const model = readFileSync(join(folder, "model.onnx"));
  model[100] = (model[100] as number) ^ 1;
  writeFileSync(join(folder, "model.onnx"), model);
  await open(page, "about");
  await importFolder(page, folder);
  await expect(page.getByRole("alert")).toContainText(
    "damaged/model.onnx was changed since it was exported; export it again.",
  );
  await expect(page.locator("dialog .packages li")).toHaveCount(1);
  await page.screenshot({ path: join(FOLDER, "screenshots", "damaged-light.png") });
  expect(await page.evaluate(async () => (await caches.open("imported-packages")).keys())).toEqual(
    [],
  );
});

test("a file that is not a package is refused", async ({ page }) => {
  await open(page, "about");
  await page.locator(".picker").click();
  const zip = page.getByLabel("Import zip");
  const file = (content: Uint8Array) => ({
    name: "x.zip",
    mimeType: "application/zip",
    buffer: Buffer.from(content),
  });
  await zip.setInputFiles(file(Uint8Array.of(1, 2, 3)));
  await expect(page.getByRole("alert")).toContainText("x.zip is not a zip file");
  await zip.setInputFiles(file(zipSync({ "readme.txt": Uint8Array.of(65) })));
  await expect(page.getByRole("alert")).toContainText("manifest.json is missing");
});

test("a bundled package that was changed on the server is refused", async ({ page }) => {
  await page.route(`**/packages/${PACKAGE}/labels.txt`, (route) =>
    route.fulfill({ body: "a\nb\n", contentType: "text/plain" }),
  );
  await open(page, "photo");
  await expect(page.getByRole("alert")).toContainText(
    "labels.txt was changed since it was exported",
  );
});

test("with trusted keys a package is refused until it is signed", async ({ page }) => {
  await page.goto("signed/#/check");
  await expect(page.getByText("Same answers as in Python")).toBeVisible();
  const folder = tinyCopy("mean-colour");
  await importFolder(page, folder);
  await expect(page.getByRole("alert")).toContainText(
    "mean-colour is not signed: model.sig is missing; use a signed package.",
  );
  await page.getByRole("button", { name: "Close" }).click();

  const [valid] = JSON.parse(readFileSync(join(TINY, "../signatures.json"), "utf8"));
  writeFileSync(join(folder, "model.sig"), valid.edits[0].text);
  await page.goto("signed/#/about");
  await importFolder(page, folder);
  await expect(page.getByRole("heading", { name: "Mean colour" })).toBeVisible();
  await page.reload(); // the signature was kept too
  await expect(page.getByRole("heading", { name: "Mean colour" })).toBeVisible();
});

test("after the first visit the page works without a network", async ({ page, context }) => {
  await open(page, "photo");
  await installed(page);
  await context.setOffline(true);
  await page.reload();
  const photo = Object.values(expected.photos)[0];
  await choosePhoto(page, photo?.path ?? "");
  expect((await classes(page))[0]?.label).toBe(photo?.classes[0]?.label);
  await page.getByRole("link", { name: "Self-check" }).click();
  await expect(page.getByText("Same answers as in Python")).toBeVisible();
});

test("the page can be installed", async ({ page }) => {
  await open(page, "about");
  await installed(page);
  const client = await page.context().newCDPSession(page);
  const { installabilityErrors } = await client.send("Page.getInstallabilityErrors");
  // The tests' own windows keep nothing, which is the one thing that may stand in the way.
  const obstacles = installabilityErrors.map(({ errorId }) => errorId);
  expect(obstacles.filter((id) => id !== "in-incognito")).toEqual([]);
  const { errors } = await client.send("Page.getAppManifest");
  expect(errors).toEqual([]);
  await page.screenshot({ path: join(FOLDER, "screenshots", "about-light.png") });
});

test("the screens fit a small phone with large text", async ({ page }) => {
  await page.setViewportSize({ width: 320, height: 640 });
  await page.addInitScript(() => {
    addEventListener("DOMContentLoaded", () => {
      document.documentElement.style.fontSize = "24px";
    });
  });
  for (const screen of ["camera", "photo", "benchmark", "check", "about"]) {
    await open(page, screen);
    const wide = await page.evaluate(() => document.documentElement.scrollWidth);
    await page.screenshot({ path: join(FOLDER, "screenshots", `small-${screen}.png`) });
    expect(wide, screen).toBeLessThanOrEqual(320);
  }
});
