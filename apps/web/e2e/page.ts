/** What the end-to-end tests share. */

import { readFileSync } from "node:fs";
import { join } from "node:path";
import { expect, type Page } from "@playwright/test";

export const FOLDER = process.env.E2E_FOLDER ?? "";
export const PACKAGE = "lite-digits-fp32";

export interface Expected {
  /** By file name: what `python -m sepvit_edge.predict` says, and the model's input. */
  photos: Record<
    string,
    { path: string; classes: { label: string; probability: number }[]; sha256: string }
  >;
  /** By task: a photo, the model's input, and the classes of its map with their share, or its boxes. */
  dense: Record<
    string,
    { photo: string; sha256: string; rows: { label: string; share: number }[] }
  >;
}

export const expected: Expected = JSON.parse(readFileSync(join(FOLDER, "expected.json"), "utf8"));

/** Open a screen and wait for the package. */
export async function open(page: Page, screen: string, query = ""): Promise<void> {
  await page.goto(`${query}#/${screen}`);
  await expect(page.locator("main h2 ~ *").first()).toBeVisible();
  await expect(page.getByText("Checking and loading the package")).toHaveCount(0);
}

/** Wait until the service worker has kept everything. */
export async function installed(page: Page): Promise<void> {
  await page.evaluate(async () => {
    await navigator.serviceWorker.ready;
  });
}

export async function choosePhoto(page: Page, path: string): Promise<void> {
  await page.locator('main input[type="file"]').setInputFiles(path);
}

export async function classes(page: Page) {
  const rows = page.locator(".classes li");
  await expect(rows).toHaveCount(3);
  return rows.evaluateAll((items) =>
    items.map((item) => ({
      label: item.querySelector(".label")?.textContent,
      percent: Number.parseFloat(item.querySelector(".percent")?.textContent ?? ""),
    })),
  );
}
