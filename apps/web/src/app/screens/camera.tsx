/** The camera screen: runs the model frame by frame. */

import { transfer } from "comlink";
import { useCallback, useEffect, useRef, useState } from "preact/hooks";
import { sentence } from "../../core/errors";
import { AnswerList, Overlay } from "../answer";
import { Icon, milliseconds, Notice } from "../components";
import type { Runner } from "../runner";
import type { Answered } from "../worker";

type Facing = "environment" | "user";

const REFUSALS: Record<string, string> = {
  NotAllowedError:
    "The camera is not allowed: allow it for this page in the browser's settings and start again.",
  NotFoundError: "No camera was found on this device; choose a photo instead.",
  NotReadableError: "The camera is in use by another program; close that and start again.",
  AbortError: "The camera did not answer in time; start it again.",
};

const NO_FRAMES = "The camera is on but does not deliver frames; stop it and start it again.";

/** Time between two checks for a frame. */
const RETRY_MS = 100;
/** Time without a frame after which the user sees a message. */
const SILENCE_MS = 8000;

export function Camera({ runner }: { runner: Runner }) {
  const video = useRef<HTMLVideoElement>(null);
  const [facing, setFacing] = useState<Facing>("environment");
  const [stream, setStream] = useState<MediaStream | null>(null);
  const [answer, setAnswer] = useState<Answered | null>(null);
  const [rate, setRate] = useState(0);
  const [message, setMessage] = useState<string | null>(null);

  const start = useCallback(async (side: Facing) => {
    setMessage(null);
    if (!navigator.mediaDevices) {
      setMessage("This browser does not let the page use a camera; choose a photo instead.");
      return;
    }
    try {
      const opened = await openCamera(side);
      setFacing(side);
      setStream((before) => {
        stop(before);
        return opened;
      });
    } catch (error) {
      const name = error instanceof Error ? error.name : "";
      setMessage(REFUSALS[name] ?? `The camera cannot be started: ${sentence(error)}.`);
    }
  }, []);

  useEffect(() => () => stop(stream), [stream]);

  useEffect(() => {
    const element = video.current;
    if (!stream || !element) return;
    element.srcObject = stream;
    // Rejected while the page is hidden; tried again until a frame arrives.
    const play = () => void element.play().catch(() => {});
    play();
    let running = true;
    const loop = async () => {
      let last = performance.now();
      while (running) {
        await nextFrame(element);
        // Null while the camera starts: the video does not have a frame yet.
        const frame = await createImageBitmap(element).catch(() => null);
        if (!running) return frame?.close();
        if (!frame) {
          play();
          if (performance.now() - last > SILENCE_MS && !document.hidden) setMessage(NO_FRAMES);
          await new Promise((resolve) => setTimeout(resolve, RETRY_MS));
          continue;
        }
        try {
          const found = await runner.api.answerFrame(transfer(frame, [frame]));
          if (!running) return;
          const now = performance.now();
          const seconds = (now - last) / 1000;
          setRate((before) => (before === 0 ? 1 / seconds : before * 0.8 + 0.2 / seconds));
          last = now;
          setAnswer(found);
          setMessage((before) => (before === NO_FRAMES ? null : before));
        } catch (error) {
          if (running) setMessage(`${sentence(error)}.`);
          return;
        }
      }
    };
    loop();
    return () => {
      running = false;
      setRate(0);
    };
  }, [stream, runner]);

  return (
    <>
      <section class="card viewer">
        {stream ? (
          <div class="live">
            <video
              ref={video}
              playsInline
              muted
              class={facing === "user" ? "mirrored" : ""}
              aria-label="Camera preview"
            />
            {answer && <Overlay answered={answer} mirrored={facing === "user"} />}
            {runner.opened.manifest.task === "classification" && (
              <span class="aim" aria-hidden="true" />
            )}
            <button
              type="button"
              class="round flip"
              aria-label="Use the other camera"
              onClick={() => start(facing === "user" ? "environment" : "user")}
            >
              <Icon name="flip" />
            </button>
          </div>
        ) : (
          <div class="empty">
            <Icon name="camera" />
            <p>Every frame is looked at on this device; none leaves it.</p>
          </div>
        )}
        {stream ? (
          <button type="button" onClick={() => setStream(null)}>
            Stop
          </button>
        ) : (
          <button type="button" class="primary" onClick={() => start(facing)}>
            Start the camera
          </button>
        )}
      </section>
      {message && <Notice kind="bad">{message}</Notice>}
      {stream && answer && (
        <section class="card" aria-label="Result">
          <AnswerList answer={answer.answer} />
          <p class="timing">
            model {milliseconds(answer.inferenceMs)} ms · resizing{" "}
            {milliseconds(answer.preprocessMs)} ms · {rate.toFixed(1)} frames a second
          </p>
        </section>
      )}
    </>
  );
}

function stop(stream: MediaStream | null): void {
  for (const track of stream?.getTracks() ?? []) track.stop();
}

/** Open a camera. Try twice, because a camera can start too slowly for the browser. */
async function openCamera(facingMode: Facing): Promise<MediaStream> {
  const video = { facingMode, width: { ideal: 1280 }, height: { ideal: 720 } };
  try {
    return await navigator.mediaDevices.getUserMedia({ video });
  } catch (error) {
    if (!(error instanceof DOMException) || error.name !== "AbortError") throw error;
    return await navigator.mediaDevices.getUserMedia({ video });
  }
}

/** Wait for the next frame, or for a moment if none arrives. */
function nextFrame(video: HTMLVideoElement): Promise<unknown> {
  return new Promise((resolve) => {
    setTimeout(resolve, 1000);
    if ("requestVideoFrameCallback" in video) video.requestVideoFrameCallback(resolve);
    else requestAnimationFrame(resolve);
  });
}
