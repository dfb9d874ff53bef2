/** Packages for segmentation and detection: drawn over the image, and never as bars of classes. */

import { join } from "node:path";
import { expect, type Page, test } from "@playwright/test";
import { choosePhoto, expected, FOLDER, open } from "./page";

async function importDense(page: Page, task: string): Promise<void> {
  await page.locator(".picker").click();
  await page.getByLabel("Import folder").setInputFiles(join(FOLDER, "dense", task));
  await expect(page.locator(".picker")).toContainText(task);
  await expect(page.getByText("Checking and loading the package")).toHaveCount(0);
}

/** The rows of the list beside the image: label and percent. */
async function legend(page: Page) {
  const rows = page.locator(".legend li");
  await expect(rows.first()).toBeVisible();
  return rows.evaluateAll((items) =>
    items.map((item) => ({
      label: item.querySelector(".label")?.textContent ?? "",
      percent: Number.parseFloat(item.querySelector(".percent")?.textContent ?? ""),
    })),
  );
}

for (const [task, { photo, sha256, rows }] of Object.entries(expected.dense)) {
  test(`${task}: a photo gets Python's answer, and the self-check is green`, async ({ page }) => {
    await open(page, "check");
    await importDense(page, task);
    await expect(page.getByText("Same answers as in Python")).toBeVisible();
    await expect(page.locator(".step.good")).toHaveCount(4);
    console.log(`${task}: ${await page.locator(".facts").textContent()}`);

    await open(page, "photo");
    await choosePhoto(page, photo);
    await expect(page.locator(".saw code")).toHaveText(sha256);
    const found = await legend(page);
    expect(found.map(({ label }) => label)).toEqual(rows.map(({ label }) => label));
    found.forEach(({ percent }, i) => {
      expect(Math.abs(percent - (rows[i]?.share ?? 0) * 100)).toBeLessThanOrEqual(0.3);
    });
    await expect(page.locator(".classes")).toHaveCount(0);
    if (task === "detection") await expect(page.locator(".overlay rect")).toHaveCount(rows.length);
    else await expect(page.getByRole("img", { name: "Class map" })).toBeVisible();
    // Drawn over the photo, not beside it.
    const [over, under] = await Promise.all(
      [".overlay", ".preview"].map((place) => page.locator(place).boundingBox()),
    );
    expect(over).toEqual(under);
    await page.screenshot({ path: join(FOLDER, "screenshots", `photo-${task}.png`) });
  });
}

test("a class map has the colours of its classes", async ({ page }) => {
  await open(page, "photo");
  await importDense(page, "segmentation");
  await choosePhoto(page, expected.dense.segmentation?.photo ?? "");
  await legend(page);
  const drawn = await page.locator("canvas.overlay").evaluate((canvas: HTMLCanvasElement) => {
    const data = canvas.getContext("2d")?.getImageData(0, 0, canvas.width, canvas.height).data;
    const colours = new Set<string>();
    for (let i = 0; data && i < data.length; i += 4) colours.add([...data.slice(i, i + 3)].join());
    return [...colours];
  });
  const wanted = await page
    .locator(".legend .colour")
    .evaluateAll((all: HTMLElement[]) =>
      all.map((one) => /\d+, \d+, \d+/.exec(getComputedStyle(one).backgroundColor)?.[0]),
    );
  expect(drawn).toHaveLength(wanted.length);
  // A canvas keeps half-transparent colours to a level or two.
  for (const colour of wanted) {
    const near = drawn.some((one) => {
      const [a, b] = [one, colour ?? ""].map((text) => text.split(",").map(Number));
      return a?.every((value, i) => Math.abs(value - (b?.[i] ?? 0)) <= 2);
    });
    expect(near, colour).toBe(true);
  }
});

for (const task of Object.keys(expected.dense)) {
  test(`${task}: frames of the camera are drawn over`, async ({ page, context }) => {
    await context.grantPermissions(["camera"]);
    await open(page, "camera");
    await importDense(page, task);
    await page.getByRole("button", { name: "Start the camera" }).click();
    await expect(page.locator(".live .overlay")).toBeVisible();
    await expect(page.locator(".timing")).toContainText("frames a second");
    await expect(page.locator(".aim")).toHaveCount(0);
    await expect(page.locator(".classes")).toHaveCount(0);
    await page.screenshot({ path: join(FOLDER, "screenshots", `camera-${task}.png`) });
  });
}
