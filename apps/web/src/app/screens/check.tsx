/** The self-check screen: compares this device's answers with Python's. */

import { useEffect, useState } from "preact/hooks";
import { sentence } from "../../core/errors";
import type { Task } from "../../core/manifest";
import type { SelfCheck } from "../../core/selfcheck";
import { Facts, Icon, Notice, percent } from "../components";
import type { Runner } from "../runner";

export function Check({ runner }: { runner: Runner }) {
  const [result, setResult] = useState<SelfCheck | null>(null);
  const [message, setMessage] = useState<string | null>(null);
  const [round, setRound] = useState(0);

  useEffect(() => {
    let gone = false;
    setResult(null);
    setMessage(null);
    runner.api.selfCheck().then(
      (found) => gone || setResult(found),
      (error: unknown) => gone || setMessage(sentence(error)),
    );
    return () => {
      gone = true;
    };
  }, [runner, round]);

  if (message) return <Notice kind="bad">{message}.</Notice>;
  if (!result) {
    return (
      <div class="loading" role="status">
        <span class="spinner" aria-hidden="true" />
        Running the golden images
      </div>
    );
  }
  const { precision, task } = runner.opened.manifest;
  const first = result.pixelDifferences[0];
  return (
    <>
      <section class={`card verdict ${result.passed ? "good" : "bad"}`} role="status">
        <Icon name={result.passed ? "check" : "close"} />
        <div>
          <strong>
            {result.passed ? "Same answers as in Python" : VERDICTS[result.failsAt ?? ""]}
          </strong>
          <span>
            {result.images} golden images · {runner.opened.runtime.name}{" "}
            {runner.opened.runtime.version} · {runner.opened.runtime.execution}
          </span>
        </div>
      </section>
      <section class="card steps">
        <Step
          title="Image to pixels"
          passed={!first}
          text={
            first
              ? `Image ${first.image} differs in ${first.differentValues} values, by ${first.maxDifference} of 255 at most.`
              : "Resized and cropped byte for byte as in Python."
          }
        />
        <Step
          title="Pixels to tensor"
          passed={!result.tensorFault}
          text={
            result.tensorFault
              ? `${result.tensorFault}.`
              : "Shape, dtype and layout are as in the manifest."
          }
        />
        <Step
          title={`Tensor to ${result.output}`}
          passed={result.sqnrDb >= result.minimumSqnrDb}
          text={
            result.maxAbsError === 0
              ? "Identical to the last bit."
              : `Largest difference ${result.maxAbsError.toPrecision(2)}, in image ${result.worstImage}.`
          }
        />
        {result.minimumAgreement !== null && (
          <Step
            title={`Outputs to ${task === "segmentation" ? "class map" : "boxes"}`}
            passed={result.agreement >= result.minimumAgreement}
            text={`${percent(result.agreement)} as in Python, ${percent(result.minimumAgreement)} needed.`}
          />
        )}
      </section>
      <section class="card">
        <Facts
          rows={[
            ["SQNR against Python's package", decibels(result.sqnrDb)],
            [`Needed in ${precision}`, decibels(result.minimumSqnrDb)],
            [SAME[task], percent(result.agreement)],
            ["SQNR against the fp32 reference", decibels(result.referenceSqnrDb)],
          ]}
        />
      </section>
      <button type="button" onClick={() => setRound(round + 1)}>
        Check again
      </button>
    </>
  );
}

const VERDICTS: Record<string, string> = {
  pixels: "Resizing differs from Python",
  tensor: "The input tensor is wrong",
  logits: "The model's answers differ from Python",
  outputs: "The model's answers differ from Python",
  answer: "What is made of the model's answers differs from Python",
};

/** What an agreement of two answers is. */
export const SAME: Record<Task, string> = {
  classification: "Same class",
  segmentation: "Pixels of the same class",
  detection: "Boxes in common",
};

function decibels(value: number): string {
  return value >= 200 ? "identical" : `${value.toFixed(1)} dB`;
}

function Step({ title, passed, text }: { title: string; passed: boolean; text: string }) {
  return (
    <div class={`step ${passed ? "good" : "bad"}`}>
      <span class="mark" role="img" aria-label={passed ? "passed" : "failed"}>
        {passed ? "✓" : "✕"}
      </span>
      <div>
        <strong>{title}</strong>
        <span>{text}</span>
      </div>
    </div>
  );
}
