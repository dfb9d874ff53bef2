/** The page with the open package and the chosen screen. */

import { useCallback, useEffect, useRef, useState } from "preact/hooks";
import { sentence } from "../core/errors";
import { Icon, type IconName, Notice } from "./components";
import type { EngineSettings } from "./engine";
import { PackageSheet } from "./package-sheet";
import { bundledPackages, importedPackages, type PackageEntry } from "./packages";
import { Runner } from "./runner";
import { About } from "./screens/about";
import { Benchmark, requestedBenchmark } from "./screens/benchmark";
import { Camera } from "./screens/camera";
import { Check } from "./screens/check";
import { Photo } from "./screens/photo";

const SCREENS: { id: string; title: string; icon: IconName }[] = [
  { id: "camera", title: "Camera", icon: "camera" },
  { id: "photo", title: "Photo", icon: "photo" },
  { id: "benchmark", title: "Benchmark", icon: "benchmark" },
  { id: "check", title: "Self-check", icon: "check" },
  { id: "about", title: "About", icon: "about" },
];

const SETTINGS: EngineSettings = { execution: "wasm", threads: 1 };
const LAST_PACKAGE = "last-package";

type State =
  | { at: "opening" }
  | { at: "open"; runner: Runner }
  | { at: "failed"; message: string }
  | { at: "none" };

function screenOfAddress(): string {
  const id = location.hash.replace(/^#\/?/, "");
  if (SCREENS.some((screen) => screen.id === id)) return id;
  return requestedBenchmark() ? "benchmark" : "photo";
}

/** Keep the app for offline use. */
function keepOffline(): void {
  if (!import.meta.env.PROD || !("serviceWorker" in navigator)) return;
  navigator.serviceWorker.register("sw.js").catch((error: unknown) => {
    console.warn("the app will not work offline:", error);
  });
}

export function App() {
  const [screen, setScreen] = useState(screenOfAddress);
  const [packages, setPackages] = useState<PackageEntry[]>([]);
  const [entry, setEntry] = useState<PackageEntry | null>(null);
  const [state, setState] = useState<State>({ at: "opening" });
  const [choosing, setChoosing] = useState(false);
  const main = useRef<HTMLElement>(null);

  const refresh = useCallback(async () => {
    const imported = await importedPackages().catch(() => []);
    const all = [...bundledPackages(), ...imported];
    setPackages(all);
    return all;
  }, []);

  useEffect(() => {
    refresh().then((all) => {
      const wanted = requestedBenchmark()?.name ?? localStorage.getItem(LAST_PACKAGE);
      const chosen = all.find(({ name }) => name === wanted) ?? all[0];
      if (chosen) setEntry(chosen);
      else setState({ at: "none" });
    });
    const follow = () => setScreen(screenOfAddress());
    addEventListener("hashchange", follow);
    return () => removeEventListener("hashchange", follow);
  }, [refresh]);

  useEffect(() => {
    if (!entry) return;
    let runner: Runner | undefined;
    let gone = false;
    setState({ at: "opening" });
    Runner.open(entry, SETTINGS).then(
      (opened) => {
        if (gone) return opened.close();
        runner = opened;
        localStorage.setItem(LAST_PACKAGE, entry.name);
        setState({ at: "open", runner });
      },
      (error: unknown) => gone || setState({ at: "failed", message: sentence(error) }),
    );
    return () => {
      gone = true;
      runner?.close();
    };
  }, [entry]);

  // Not earlier: it would download the model twice at the same time.
  useEffect(() => {
    if (state.at !== "opening") keepOffline();
  }, [state.at]);

  const go = (id: string) => {
    location.hash = `/${id}`;
    main.current?.focus();
  };

  return (
    <div class="page">
      <header>
        <h1>
          <img src="icon.svg" alt="" width="28" height="28" />
          SepViT-Edge
        </h1>
        <button type="button" class="picker" onClick={() => setChoosing(true)}>
          <Icon name="package" />
          <span>{entry?.name ?? "Choose a package"}</span>
        </button>
      </header>
      <nav aria-label="Screens">
        {SCREENS.map(({ id, title, icon }) => (
          <a
            key={id}
            href={`#/${id}`}
            aria-current={screen === id ? "page" : undefined}
            onClick={() => go(id)}
          >
            <Icon name={icon} />
            <span>{title}</span>
          </a>
        ))}
      </nav>
      <main ref={main} tabIndex={-1}>
        <h2>{SCREENS.find(({ id }) => id === screen)?.title}</h2>
        {!isSecureContext && (
          <Notice kind="bad">
            Browsers allow the camera, hashes and storage on secure pages only: open this page over
            https, or on localhost.
          </Notice>
        )}
        {state.at === "opening" && (
          <div class="loading" role="status">
            <span class="spinner" aria-hidden="true" />
            Checking and loading the package
          </div>
        )}
        {state.at === "failed" && <Notice kind="bad">{state.message}.</Notice>}
        {state.at === "none" && (
          <section class="card empty">
            <Icon name="package" />
            <p>
              No package is here yet. Export one with{" "}
              <code>python -m sepvit_edge.export --target onnxruntime</code> and import its folder.
            </p>
            <button type="button" class="primary" onClick={() => setChoosing(true)}>
              Import a package
            </button>
          </section>
        )}
        {state.at === "open" && entry && (
          <Screen key={`${screen} ${entry.base}`} id={screen} runner={state.runner} />
        )}
      </main>
      {choosing && (
        <PackageSheet
          packages={packages}
          current={entry}
          onChoose={(chosen) => {
            setEntry(chosen);
            setChoosing(false);
          }}
          onChange={async () => {
            const all = await refresh();
            if (entry && !all.some(({ base }) => base === entry.base)) {
              setEntry(all[0] ?? null);
              if (!all[0]) setState({ at: "none" });
            }
          }}
          onClose={() => setChoosing(false)}
        />
      )}
    </div>
  );
}

function Screen({ id, runner }: { id: string; runner: Runner }) {
  switch (id) {
    case "camera":
      return <Camera runner={runner} />;
    case "benchmark":
      return <Benchmark runner={runner} />;
    case "check":
      return <Check runner={runner} />;
    case "about":
      return <About runner={runner} />;
    default:
      return <Photo runner={runner} />;
  }
}
