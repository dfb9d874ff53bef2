/** Reads the device's properties from the browser. A property that it does not report is null. */

import type { Conditions, Device } from "../core/benchmark";

interface UserAgentData {
  brands: { brand: string; version: string }[];
  platform: string;
  getHighEntropyValues(hints: string[]): Promise<{
    architecture?: string;
    bitness?: string;
    model?: string;
    platformVersion?: string;
  }>;
}

interface BatteryManager {
  charging: boolean;
  level: number;
}

type Told = Navigator & {
  userAgentData?: UserAgentData;
  getBattery?: () => Promise<BatteryManager>;
};

/** Read the device's properties, from the user agent's client hints if the browser supports them. */
export async function device(): Promise<Device> {
  const data = (navigator as Told).userAgentData;
  const hints = ["architecture", "bitness", "model", "platformVersion"];
  const told = await data?.getHighEntropyValues(hints).catch(() => undefined);
  const os = data?.platform || operatingSystem(navigator.userAgent);
  const browser = browserName(data, navigator.userAgent);
  const model = told?.model || null;
  const bits = told?.bitness ? `_${told.bitness}` : "";
  return {
    name: model ?? `${browser ?? "a browser"}${os ? ` on ${os}` : ""}`,
    model,
    architecture: told?.architecture ? `${told.architecture}${bits}` : null,
    os,
    os_version: told?.platformVersion || null,
    browser,
    logical_cores: navigator.hardwareConcurrency || null,
  };
}

function browserName(data: UserAgentData | undefined, agent: string): string | null {
  // Browsers add a made-up brand, so that pages do not rely on the list.
  const real = data?.brands.filter(({ brand }) => !/not.*brand/i.test(brand)) ?? [];
  const brand = real.find((b) => b.brand !== "Chromium") ?? real[0];
  if (brand) return `${brand.brand} ${brand.version}`;
  const found = /(Firefox|CriOS|FxiOS)\/(\d+)/.exec(agent);
  if (found) return `${found[1]} ${found[2]}`;
  const safari = /Version\/([\d.]+).*Safari/.exec(agent);
  return safari ? `Safari ${safari[1]}` : null;
}

function operatingSystem(agent: string): string | null {
  const names = { iPhone: "iOS", iPad: "iPadOS", Android: "Android", Windows: "Windows" };
  const more = { "Mac OS X": "macOS", CrOS: "ChromeOS", Linux: "Linux" };
  const found = Object.entries({ ...names, ...more }).find(([word]) => agent.includes(word));
  return found?.[1] ?? null;
}

/** Read the state of the power supply, if the browser reports it. */
export async function conditions(): Promise<Conditions | null> {
  const battery = await (navigator as Told).getBattery?.().catch(() => undefined);
  return battery
    ? { battery_percent: Math.round(battery.level * 100), charging: battery.charging }
    : null;
}

export const notMeasured = [
  { what: "memory", reason: "Browsers do not report the memory of a worker." },
  { what: "energy", reason: "Browsers do not report power." },
  { what: "operations", reason: "The runtime's profiler is not available in browsers." },
  { what: "roofs", reason: "The page measures only the model." },
  { what: "cold_start.import_ms", reason: "Loading the runtime is part of total_ms." },
  { what: "device.memory_mb", reason: "Browsers round it, some to at most 8 GB." },
  { what: "device.soc", reason: "Browsers do not report it." },
  { what: "before.temperatures_c", reason: "Browsers do not report it." },
  { what: "before.frequencies_mhz", reason: "Browsers do not report it." },
];
