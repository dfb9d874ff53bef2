/** The same photo gives the same answer as in Python. */

import { join } from "node:path";
import { expect, test } from "@playwright/test";
import { choosePhoto, classes, expected, FOLDER, open } from "./page";

const IMAGES = join(import.meta.dirname, "../../../tests/vectors/images");

test("photos get Python's input and classes", async ({ page }) => {
  await open(page, "photo");
  for (const [name, { path, classes: wanted, sha256 }] of Object.entries(expected.photos)) {
    await choosePhoto(page, path);
    // The digest first: it tells that the answer is this photo's.
    await expect(page.locator(".saw code"), name).toHaveText(sha256);
    const found = await classes(page);
    expect(
      found.map(({ label }) => label),
      name,
    ).toEqual(wanted.map(({ label }) => label));
    found.forEach(({ percent }, i) => {
      const exact = (wanted[i]?.probability ?? 0) * 100;
      expect(Math.abs(percent - exact), name).toBeLessThanOrEqual(0.06);
    });
    console.log(`${name}: ${await page.locator(".timing").textContent()}`);
  }
});

test("a file that is not a photo shows a sentence, and the next photo works", async ({ page }) => {
  await open(page, "photo");
  for (const [file, words] of [
    ["text.jpg", "is not an image"],
    ["empty.png", "is not an image"],
    ["truncated.png", "is a damaged image"],
    ["line.png", "an image needs 2 x 2 at least"],
  ] as const) {
    await choosePhoto(page, join(IMAGES, file));
    await expect(page.getByRole("alert")).toContainText(words);
  }
  await choosePhoto(page, Object.values(expected.photos)[0]?.path ?? "");
  expect(await classes(page)).toHaveLength(3);
  await expect(page.getByRole("alert")).toHaveCount(0);
});

test("a photo is shown in light and dark", async ({ page }) => {
  for (const scheme of ["light", "dark"] as const) {
    await page.emulateMedia({ colorScheme: scheme });
    await open(page, "photo");
    await choosePhoto(page, join(FOLDER, "photos", "seven.png"));
    await classes(page);
    await page.screenshot({ path: join(FOLDER, "screenshots", `photo-${scheme}.png`) });
  }
});
