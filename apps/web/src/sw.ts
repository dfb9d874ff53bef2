/** The service worker: the app and its packages work offline, and with threads. */

/** Revision of every file by its path, inserted when the app is built. */
declare const PRECACHE_FILES: Record<string, string>;

const scope = self as unknown as ServiceWorkerGlobalScope;

const CACHE = "sepvit-edge";
const REVISION = "revision";

const files = new Map(
  Object.entries(PRECACHE_FILES).map(([path, revision]) => [
    new URL(path, scope.registration.scope).href,
    revision,
  ]),
);

/** Return the key of a file in the cache: its address and its version. */
function keyOf(url: string): string {
  const key = new URL(url);
  key.searchParams.set(REVISION, files.get(url) ?? "");
  return key.href;
}

scope.addEventListener("install", (event) => {
  event.waitUntil(
    (async () => {
      const cache = await caches.open(CACHE);
      for (const url of files.keys()) {
        const key = keyOf(url);
        if (await cache.match(key)) continue;
        // Bypass the browser's cache, which fails both readers of a file that is too large for it.
        const response = await fetch(url, { cache: "no-store" });
        if (!response.ok) throw new Error(`${url}: ${response.status}`);
        await cache.put(key, response);
      }
    })(),
  );
});

scope.addEventListener("activate", (event) => {
  event.waitUntil(
    (async () => {
      const cache = await caches.open(CACHE);
      const wanted = new Set([...files.keys()].map(keyOf));
      for (const { url } of await cache.keys()) {
        if (!wanted.has(url)) await cache.delete(url);
      }
      await scope.clients.claim();
    })(),
  );
});

scope.addEventListener("fetch", (event) => {
  const { request } = event;
  const url = new URL(request.url);
  if (request.method !== "GET" || url.origin !== scope.location.origin) return;
  event.respondWith(answer(request, url));
});

async function answer(request: Request, url: URL): Promise<Response> {
  const page = request.mode === "navigate";
  url.search = "";
  url.hash = "";
  const known = page ? scope.registration.scope : url.href;
  const cache = await caches.open(CACHE);
  if (files.has(known)) {
    const kept = await cache.match(keyOf(known));
    if (kept) return isolated(kept);
  }
  const response = await fetch(request);
  // The WebGPU build of the runtime is large: it is cached on first use.
  if (response.ok && url.pathname.includes("/assets/")) {
    await cache.put(keyOf(url.href), response.clone());
  }
  return isolated(response);
}

/** Add the headers that allow threads, for servers that do not send them. */
function isolated(response: Response): Response {
  if (response.type === "opaque" || response.status === 0) return response;
  const headers = new Headers(response.headers);
  headers.set("Cross-Origin-Opener-Policy", "same-origin");
  headers.set("Cross-Origin-Embedder-Policy", "require-corp");
  headers.set("Cross-Origin-Resource-Policy", "same-origin");
  const { status, statusText } = response;
  return new Response(response.body, { status, statusText, headers });
}
