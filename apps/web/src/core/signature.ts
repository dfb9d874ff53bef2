/** Signatures of packages, as docs/signatures.md describes them: whose files they are. */

import { SepViTError } from "./errors";
import { sha256 } from "./hash";

type Bytes = Uint8Array<ArrayBuffer>;

export const SIGNATURE = "model.sig";
const BUNDLE = "application/vnd.dev.sigstore.bundle.v0.3+json";
const PAYLOAD = "application/vnd.in-toto+json";
const STATEMENT = "https://in-toto.io/Statement/v1";
const PREDICATE = "https://model_signing/signature/v1.0";
const LARGEST = 1 << 22;

interface Signed {
  files: Map<string, string>;
  expires: string | null;
}

/**
 * Check that a trusted key has signed exactly the files of a package.
 *
 * @param name what to call the package in an error.
 * @param signature the bytes of model.sig; null where there is none.
 * @param digests the SHA-256 of every other file of the folder, by its path.
 * @param keys public keys on P-256, in PEM, one after the other.
 * @throws SepViTError whose kind says what is wrong.
 */
export async function verifySignature(
  name: string,
  signature: Bytes | null,
  digests: ReadonlyMap<string, string>,
  keys: string,
  now: Date = new Date(),
): Promise<void> {
  if (!signature) {
    throw new SepViTError(
      `${name} is not signed: ${SIGNATURE} is missing; use a signed package`,
      "unsigned",
    );
  }
  if (signature.length > LARGEST) throw damaged(name);
  const bundle = envelope(parse(signature, name), name);
  const trusted = await importKeys(keys);
  const raw = rawSignature(bundle.signature);
  const checks = trusted.map(
    async (key) =>
      raw !== null &&
      crypto.subtle.verify({ name: "ECDSA", hash: "SHA-256" }, key, raw, encoded(bundle.payload)),
  );
  if (!(await Promise.all(checks)).includes(true)) {
    throw new SepViTError(
      `${name} is not signed by a trusted key, or its signature was changed; use a package of a source that you trust`,
      "untrusted",
    );
  }
  const signed = await statement(parse(bundle.payload, name), name);
  if (signed.expires !== null && now.getTime() >= time(signed.expires, name)) {
    throw new SepViTError(
      `the signature of ${name} has expired on ${signed.expires}; use a newer package`,
      "expired",
    );
  }
  compare(name, signed.files, digests);
}

function compare(
  name: string,
  signed: ReadonlyMap<string, string>,
  found: ReadonlyMap<string, string>,
): void {
  for (const path of [...new Set([...signed.keys(), ...found.keys()])].sort()) {
    const [before, now] = [signed.get(path), found.get(path)];
    if (before === now) continue;
    const [what, kind] =
      now === undefined
        ? (["is signed, but missing", "missing"] as const)
        : before === undefined
          ? (["was added after it was signed", "added"] as const)
          : (["was changed after it was signed", "changed"] as const);
    throw new SepViTError(`${name}: ${path} ${what}; use an untouched copy of the package`, kind);
  }
}

function envelope(document: unknown, name: string): { payload: Bytes; signature: Bytes } {
  const { mediaType, dsseEnvelope } = fields(document, name);
  const { payload, payloadType, signatures } = fields(dsseEnvelope, name);
  if (mediaType !== BUNDLE || payloadType !== PAYLOAD) throw damaged(name);
  if (!Array.isArray(signatures) || signatures.length !== 1) throw damaged(name);
  return {
    payload: fromBase64(payload, name),
    signature: fromBase64(fields(signatures[0], name).sig, name),
  };
}

async function statement(document: unknown, name: string): Promise<Signed> {
  const { _type, subject, predicateType, predicate } = fields(document, name);
  const { serialization, resources, expires } = fields(predicate, name);
  const { method, hash_type } = fields(serialization, name);
  if (!Array.isArray(subject) || subject.length !== 1 || !Array.isArray(resources)) {
    throw damaged(name);
  }
  const entries = resources.map((entry): [string, string] => {
    const { name: path, algorithm, digest } = fields(entry, name);
    if (typeof path !== "string" || algorithm !== "sha256") throw damaged(name);
    if (typeof digest !== "string" || !/^[0-9a-f]{64}$/.test(digest)) throw damaged(name);
    return [path, digest];
  });
  const files = new Map(entries);
  const all = entries.map(([, digest]) => digest).join("");
  const root = await sha256(Uint8Array.from(all.match(/../g) ?? [], (hex) => parseInt(hex, 16)));
  if (
    _type !== STATEMENT ||
    predicateType !== PREDICATE ||
    method !== "files" ||
    hash_type !== "sha256" ||
    files.size < entries.length ||
    fields(fields(subject[0], name).digest, name).sha256 !== root ||
    !(expires === undefined || expires === null || typeof expires === "string")
  ) {
    throw damaged(name);
  }
  return { files, expires: expires ?? null };
}

function time(text: string, name: string): number {
  const found = Date.parse(text);
  // Date.parse takes other notations too, and the 30th of February for the 2nd of March.
  if (Number.isNaN(found) || new Date(found).toISOString().replace(".000Z", "Z") !== text) {
    throw damaged(name);
  }
  return found;
}

async function importKeys(pem: string): Promise<CryptoKey[]> {
  const blocks = pem.match(/-----BEGIN PUBLIC KEY-----[^-]*-----END PUBLIC KEY-----/g);
  if (!blocks) throw new SepViTError("there is no trusted public key in PEM; give one");
  const curve = { name: "ECDSA", namedCurve: "P-256" };
  return Promise.all(
    blocks.map((block) => {
      const text = block.replace(/-----[A-Z ]+-----|\s/g, "");
      const der = Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
      return crypto.subtle.importKey("spki", der, curve, false, ["verify"]);
    }),
  ).catch(() => {
    throw new SepViTError("a trusted key is not a public key on the curve P-256");
  });
}

/** Return what is signed: DSSE's encoding of the payload and its type. */
function encoded(payload: Bytes): Bytes {
  const head = new TextEncoder().encode(`DSSEv1 ${PAYLOAD.length} ${PAYLOAD} ${payload.length} `);
  const whole = new Uint8Array(head.length + payload.length);
  whole.set(head);
  whole.set(payload, head.length);
  return whole;
}

/** Turn a signature in DER into the two numbers of 32 bytes that browsers take; null if it is not. */
function rawSignature(der: Bytes): Bytes | null {
  if (der[0] !== 0x30 || der[1] !== der.length - 2) return null;
  const raw = new Uint8Array(64);
  let start = 2;
  for (const end of [32, 64]) {
    const length = der[start + 1] ?? 0;
    const number = der.slice(start + 2, start + 2 + length);
    if (der[start] !== 0x02 || length === 0 || number.length !== length) return null;
    start += 2 + length;
    const digits = number[0] === 0 ? number.slice(1) : number;
    if (digits.length > 32) return null;
    raw.set(digits, end - digits.length);
  }
  return start === der.length ? raw : null;
}

function parse(bytes: Bytes, name: string): unknown {
  try {
    return JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes));
  } catch {
    throw damaged(name);
  }
}

function fields(value: unknown, name: string): Record<string, unknown> {
  if (typeof value !== "object" || value === null || Array.isArray(value)) throw damaged(name);
  return value as Record<string, unknown>;
}

function fromBase64(text: unknown, name: string): Bytes {
  if (typeof text !== "string" || text.length % 4 || !/^[A-Za-z0-9+/]*={0,2}$/.test(text)) {
    throw damaged(name);
  }
  return Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
}

function damaged(name: string): SepViTError {
  return new SepViTError(
    `${name}/${SIGNATURE} is damaged, or is not a signature of files by a key`,
    "damaged-signature",
  );
}
