/** The about screen: shows the package's manifest. */

import { inputSize } from "../../core/manifest";
import { Facts, megabytes, percent } from "../components";
import type { Runner } from "../runner";
import { SAME } from "./check";

export function About({ runner }: { runner: Runner }) {
  const { manifest, labels, size, runtime } = runner.opened;
  const { model, input, parity, quantization, source } = manifest;
  const taken = inputSize(manifest);
  return (
    <>
      <section class="card">
        <h3>{model.name}</h3>
        <Facts
          rows={[
            ["Classes", String(model.num_classes)],
            ["Task", manifest.task],
            ["Input", `${taken.width} x ${taken.height}, ${input.layout}, ${input.dtype}`],
            ["Parameters", `${(model.parameters / 1e6).toFixed(2)} M`],
            ["Multiply-accumulates", `${(model.macs / 1e6).toFixed(0)} M an image`],
            ["Model file", megabytes(size)],
            ["Precision", manifest.precision],
            ["Weights trained on", source.trained_on ?? "not stated"],
          ]}
        />
      </section>
      <section class="card">
        <h3>Against the fp32 reference</h3>
        {parity ? (
          <Facts
            rows={[
              ["Compared on", `${parity.images} images of ${parity.data}`],
              [
                manifest.task === "classification"
                  ? "SQNR of the logits"
                  : "SQNR of the worst output",
                `${parity.sqnr_db} dB`,
              ],
              [SAME[manifest.task], percent(parity.top1_agreement)],
              ...(parity.top1_package === null
                ? []
                : ([["Top-1 accuracy", percent(parity.top1_package)]] as const)),
            ]}
          />
        ) : (
          <p>Parity was not measured.</p>
        )}
      </section>
      {quantization && (
        <section class="card">
          <h3>Quantisation</h3>
          <p>{quantization.scheme}</p>
          <Facts
            rows={[
              ["Calibrated on", `${quantization.calibration_images} images`],
              ["Layers left in float", String(quantization.float_layers.length)],
            ]}
          />
        </section>
      )}
      <section class="card">
        <h3>Runtime</h3>
        <Facts
          rows={[
            ["Here", `${runtime.name} ${runtime.version}, ${runtime.execution}`],
            ["Exported with", `${manifest.runtime.name} ${manifest.runtime.version}`],
            [
              "Runs on",
              `${manifest.runtime.minimum} or later, older than ${manifest.runtime.below}`,
            ],
            ["Threads allowed", crossOriginIsolated ? String(navigator.hardwareConcurrency) : "1"],
          ]}
        />
      </section>
      <section class="card">
        <h3>Files</h3>
        <ul class="files">
          {manifest.files.map((file) => (
            <li key={file.path}>
              <span>{file.path}</span>
              <span>{megabytes(file.size)}</span>
              <code>{file.sha256}</code>
            </li>
          ))}
        </ul>
      </section>
      <details class="card">
        <summary>{labels.length} labels</summary>
        <p class="labels">{labels.join(", ")}</p>
      </details>
    </>
  );
}
