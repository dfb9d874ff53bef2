/** Components that several screens share. */

import type { ComponentChildren } from "preact";

const PATHS = {
  camera:
    "M4 8.5A2.5 2.5 0 0 1 6.5 6h1.2l1-1.6A2 2 0 0 1 10.4 3.5h3.2a2 2 0 0 1 1.7.9l1 1.6h1.2A2.5 2.5 0 0 1 20 8.5v8a2.5 2.5 0 0 1-2.5 2.5h-11A2.5 2.5 0 0 1 4 16.5zM12 9a3.5 3.5 0 1 0 0 7 3.5 3.5 0 0 0 0-7z",
  photo:
    "M4 6.5A2.5 2.5 0 0 1 6.5 4h11A2.5 2.5 0 0 1 20 6.5v11a2.5 2.5 0 0 1-2.5 2.5h-11A2.5 2.5 0 0 1 4 17.5zM4 16l4.5-4.5 3.5 3.5 2.5-2.5L20 17.5M15.5 9a1 1 0 1 0 0-.01",
  benchmark: "M4.5 18a8.5 8.5 0 1 1 15 0M12 14l4-5",
  check: "M12 3.5l7 2.6v5.2c0 4.3-2.9 7.6-7 9.2-4.1-1.6-7-4.9-7-9.200V6.100zM9 12l2.2 2.2 4.3-4.3",
  about: "M12 4a8 8 0 1 0 0 16 8 8 0 0 0 0-16zM12 11v5M12 8v.01",
  package: "M12 3.5l7.5 4v9L12 20.500l-7.5-4v-9zM4.5 7.500L12 11.500l7.5-4M12 11.500v9",
  flip: "M5 9a7 7 0 0 1 12.5-2.500L19 8M19 4v4h-4M19 15a7 7 0 0 1-12.5 2.500L5 16M5 20v-4h4",
  close: "M6 6l12 12M18 6L6 18",
  share: "M12 15V4M8.5 7L12 3.5 15.5 7M6 11.500v7h12v-7",
};

export type IconName = keyof typeof PATHS;

export function Icon({ name }: { name: IconName }) {
  return (
    <svg class="icon" viewBox="0 0 24 24" aria-hidden="true">
      <path d={PATHS[name]} />
    </svg>
  );
}

/** A sentence about an error, or something that needs attention. */
export function Notice({ kind, children }: { kind: "bad" | "info"; children: ComponentChildren }) {
  return (
    <p class={`notice ${kind}`} role={kind === "bad" ? "alert" : "status"}>
      {children}
    </p>
  );
}

/** Names and values, one pair per line. */
export function Facts({ rows }: { rows: readonly (readonly [string, ComponentChildren])[] }) {
  return (
    <dl class="facts">
      {rows.map(([name, value]) => (
        <div key={name}>
          <dt>{name}</dt>
          <dd>{value}</dd>
        </div>
      ))}
    </dl>
  );
}

/** A number with its unit, large. */
export function Figure({ name, value, unit }: { name: string; value: string; unit: string }) {
  return (
    <div class="figure">
      <span class="name">{name}</span>
      <span class="value">
        {value}
        <small> {unit}</small>
      </span>
    </div>
  );
}

export function percent(share: number): string {
  return `${(share * 100).toFixed(1)} %`;
}

export function milliseconds(ms: number): string {
  return ms < 10 ? ms.toFixed(2) : ms < 100 ? ms.toFixed(1) : ms.toFixed(0);
}

export function megabytes(bytes: number): string {
  return `${(bytes / 1e6).toFixed(bytes < 1e6 ? 3 : 2)} MB`;
}
