import { join } from "node:path";
import { expect, test } from "@playwright/test";
import { classes, FOLDER, open } from "./page";

test("frames of the camera are classified", async ({ page, context }) => {
  await context.grantPermissions(["camera"]);
  await page.emulateMedia({ colorScheme: "dark" });
  await open(page, "camera");
  await page.getByRole("button", { name: "Start the camera" }).click();
  // A camera that does not start shows its reason; the failure then says it.
  await expect(page.getByRole("alert").or(page.locator(".classes"))).toBeVisible();
  await expect(page.getByRole("alert")).toHaveCount(0);
  const found = await classes(page);
  const sum = found.reduce((total, { percent }) => total + percent, 0);
  expect(sum).toBeGreaterThan(10);
  await expect(page.locator(".timing")).toContainText("frames a second");
  await page.waitForTimeout(500);
  await page.screenshot({ path: join(FOLDER, "screenshots", "camera-dark.png") });
  await page.getByRole("button", { name: "Stop" }).click();
  await expect(page.locator("video")).toHaveCount(0);
});

test("a camera that is slow to wake up is asked again, and silence is explained", async ({
  page,
  context,
}) => {
  await context.grantPermissions(["camera"]);
  await page.addInitScript(() => {
    const getUserMedia = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
    let calls = 0;
    navigator.mediaDevices.getUserMedia = (constraints) => {
      calls += 1;
      return calls === 1
        ? Promise.reject(new DOMException("Timeout starting video source", "AbortError"))
        : getUserMedia(constraints);
    };
    // A stream without frames, until the test lets them through.
    const play = HTMLMediaElement.prototype.play;
    HTMLMediaElement.prototype.play = function () {
      return "letFramesIn" in window ? play.call(this) : Promise.reject(new DOMException("hidden"));
    };
  });
  await open(page, "camera");
  await page.getByRole("button", { name: "Start the camera" }).click();
  await expect(page.getByRole("alert")).toContainText("does not deliver frames");
  await page.evaluate(() => Object.assign(window, { letFramesIn: true }));
  await classes(page);
  await expect(page.getByRole("alert")).toHaveCount(0);
});

test("a camera that is refused is explained", async ({ page }) => {
  await page.addInitScript(() => {
    navigator.mediaDevices.getUserMedia = () =>
      Promise.reject(new DOMException("denied", "NotAllowedError"));
  });
  await open(page, "camera");
  await page.getByRole("button", { name: "Start the camera" }).click();
  await expect(page.getByRole("alert")).toContainText("allow it for this page");
  await expect(page.getByRole("button", { name: "Start the camera" })).toBeVisible();
});
