/** The photo screen: runs a photo from a file, from the clipboard, or dropped on the page. */

import { useCallback, useEffect, useRef, useState } from "preact/hooks";
import { sentence } from "../../core/errors";
import type { Size } from "../../core/postprocess";
import { AnswerList, Overlay } from "../answer";
import { Facts, Icon, milliseconds, Notice } from "../components";
import type { Runner } from "../runner";
import type { PhotoAnswer } from "../worker";

export function Photo({ runner }: { runner: Runner }) {
  const [preview, setPreview] = useState<string | null>(null);
  const [answer, setAnswer] = useState<PhotoAnswer | null>(null);
  const [message, setMessage] = useState<string | null>(null);
  const [busy, setBusy] = useState(false);
  const latest = useRef(0);

  const run = useCallback(
    async (file: File | undefined) => {
      if (!file) return;
      const turn = ++latest.current;
      setBusy(true);
      setMessage(null);
      setAnswer(null);
      setPreview(URL.createObjectURL(file));
      try {
        const found = await runner.api.answerFile(file, file.name || "the image");
        if (turn === latest.current) setAnswer(found);
      } catch (error) {
        if (turn !== latest.current) return;
        setPreview(null);
        setMessage(sentence(error));
      } finally {
        if (turn === latest.current) setBusy(false);
      }
    },
    [runner],
  );

  useEffect(() => () => URL.revokeObjectURL(preview ?? ""), [preview]);

  useEffect(() => {
    const paste = (event: ClipboardEvent) => run(event.clipboardData?.files[0]);
    const over = (event: DragEvent) => event.preventDefault();
    const drop = (event: DragEvent) => {
      event.preventDefault();
      run(event.dataTransfer?.files[0]);
    };
    addEventListener("paste", paste);
    addEventListener("dragover", over);
    addEventListener("drop", drop);
    return () => {
      removeEventListener("paste", paste);
      removeEventListener("dragover", over);
      removeEventListener("drop", drop);
    };
  }, [run]);

  return (
    <>
      <section class="card viewer">
        {preview ? (
          <div class="pictured">
            <img class="preview" src={preview} alt="The chosen file" />
            {answer && <Overlay answered={answer} />}
          </div>
        ) : (
          <div class="empty">
            <Icon name="photo" />
            <p>Choose a photo, paste one, or drop one here. It stays on this device.</p>
          </div>
        )}
        <label class={`button ${preview ? "" : "primary"}`}>
          {preview ? "Choose another photo" : "Choose a photo"}
          <input
            type="file"
            accept="image/*"
            onChange={(event) => {
              run(event.currentTarget.files?.[0]);
              event.currentTarget.value = "";
            }}
          />
        </label>
      </section>
      {message && <Notice kind="bad">{message}.</Notice>}
      {busy && !answer && (
        <div class="loading" role="status">
          <span class="spinner" aria-hidden="true" />
          Running the model
        </div>
      )}
      {answer && (
        <section class="card" aria-label="Result">
          <div role="status">
            <AnswerList answer={answer.answer} />
          </div>
          <p class="timing">
            model {milliseconds(answer.inferenceMs)} ms · resizing{" "}
            {milliseconds(answer.preprocessMs)} ms · decoding {milliseconds(answer.decodeMs)} ms
          </p>
          <details>
            <summary>Input of the model</summary>
            <div class="saw">
              <Seen pixels={answer.pixels} size={answer.inputSize} />
              <Facts
                rows={[
                  ["Photo", `${answer.width} x ${answer.height}`],
                  ["Input", `${answer.inputSize.width} x ${answer.inputSize.height}`],
                  ["SHA-256 of the input", <code key="digest">{answer.sha256}</code>],
                ]}
              />
            </div>
            <p class="hint">
              Python's preprocessing gives an input with the same SHA-256, unless the two JPEG
              decoders round differently.
            </p>
          </details>
        </section>
      )}
    </>
  );
}

/** Draws the model's input. */
function Seen({ pixels, size }: { pixels: Uint8Array; size: Size }) {
  const canvas = useRef<HTMLCanvasElement>(null);
  useEffect(() => {
    const image = new ImageData(size.width, size.height);
    for (let i = 0; i < size.width * size.height; i++) {
      image.data.set(pixels.subarray(i * 3, i * 3 + 3), i * 4);
      image.data[i * 4 + 3] = 255;
    }
    canvas.current?.getContext("2d")?.putImageData(image, 0, 0);
  }, [pixels, size]);
  return <canvas ref={canvas} {...size} role="img" aria-label="The input" />;
}
