/** The dialog in which a package is chosen, imported or removed. */

import { useEffect, useRef, useState } from "preact/hooks";
import { sentence } from "../core/errors";
import { Icon, Notice } from "./components";
import { importPackage, type PackageEntry, removePackage } from "./packages";

export function PackageSheet(props: {
  packages: PackageEntry[];
  current: PackageEntry | null;
  onChoose(entry: PackageEntry): void;
  /** The imported packages have changed. */
  onChange(): void;
  onClose(): void;
}) {
  const dialog = useRef<HTMLDialogElement>(null);
  const [message, setMessage] = useState<string | null>(null);
  const [busy, setBusy] = useState(false);
  useEffect(() => dialog.current?.showModal(), []);

  const add = async (input: HTMLInputElement) => {
    const files = [...(input.files ?? [])];
    input.value = "";
    if (files.length === 0) return;
    setBusy(true);
    setMessage(null);
    try {
      const entry = await importPackage(files);
      props.onChange();
      props.onChoose(entry);
    } catch (error) {
      setMessage(sentence(error));
    } finally {
      setBusy(false);
    }
  };

  return (
    <dialog ref={dialog} onClose={props.onClose} aria-labelledby="packages-title">
      <div class="sheet-head">
        <h2 id="packages-title">Packages</h2>
        <button
          type="button"
          class="round"
          aria-label="Close"
          onClick={() => dialog.current?.close()}
        >
          <Icon name="close" />
        </button>
      </div>
      <ul class="packages">
        {props.packages.map((entry) => (
          <li key={entry.base}>
            <button
              type="button"
              class="choice"
              aria-pressed={entry.base === props.current?.base}
              onClick={() => props.onChoose(entry)}
            >
              <Icon name="package" />
              <span>
                {entry.name}
                <small>{entry.imported ? "imported" : "comes with the app"}</small>
              </span>
            </button>
            {entry.imported && (
              <button
                type="button"
                class="quiet"
                aria-label={`Remove ${entry.name}`}
                onClick={async () => {
                  await removePackage(entry);
                  props.onChange();
                }}
              >
                Remove
              </button>
            )}
          </li>
        ))}
      </ul>
      {message && <Notice kind="bad">{message}.</Notice>}
      <div class="buttons">
        <label class="button" aria-disabled={busy}>
          {busy ? "Checking …" : "Import zip"}
          <input
            type="file"
            accept=".zip,application/zip"
            disabled={busy}
            onChange={(event) => add(event.currentTarget)}
          />
        </label>
        <label class="button" aria-disabled={busy}>
          Import folder
          <input
            type="file"
            multiple
            disabled={busy}
            ref={(input) => input?.setAttribute("webkitdirectory", "")}
            onChange={(event) => add(event.currentTarget)}
          />
        </label>
      </div>
      <p class="hint">
        A package is the folder that <code>python -m sepvit_edge.export --target onnxruntime</code>{" "}
        writes. It stays on this device.
      </p>
    </dialog>
  );
}
