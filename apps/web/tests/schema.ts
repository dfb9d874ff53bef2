/** The published schemas, for programs that write documents. */

import type { Schema } from "@cfworker/json-schema";

/**
 * A published schema that forbids unknown keys.
 *
 * Readers ignore such keys, so the published schemas allow them; a program that writes one has
 * misspelt a key.
 */
export function closed(schema: unknown): Schema {
  return JSON.parse(JSON.stringify(schema), (_, node) =>
    typeof node?.properties === "object" && node.type === "object"
      ? { ...node, additionalProperties: false }
      : node,
  );
}
