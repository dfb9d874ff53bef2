/** Classify what the camera sees, frame by frame. */

import { transfer } from "comlink";
import { useCallback, useEffect, useRef, useState } from "preact/hooks";
import { sentence } from "../../core/errors";
import { Classes, Icon, milliseconds, Notice } from "../components";
import type { Runner } from "../runner";
import type { Answer } from "../worker";

type Facing = "environment" | "user";

const REFUSALS: Record<string, string> = {
  NotAllowedError:
    "The camera may not be used: allow it for this page in the browser's settings and start again.",
  NotFoundError: "This device has no camera; pick a photo instead.",
  NotReadableError: "The camera is in use by another program; close that and start again.",
};

export function Camera({ runner }: { runner: Runner }) {
  const video = useRef<HTMLVideoElement>(null);
  const [facing, setFacing] = useState<Facing>("environment");
  const [stream, setStream] = useState<MediaStream | null>(null);
  const [answer, setAnswer] = useState<Answer | null>(null);
  const [rate, setRate] = useState(0);
  const [message, setMessage] = useState<string | null>(null);

  const start = useCallback(async (side: Facing) => {
    setMessage(null);
    if (!navigator.mediaDevices) {
      setMessage("This browser gives the page no camera; pick a photo instead.");
      return;
    }
    try {
      const size = { width: { ideal: 1280 }, height: { ideal: 720 } };
      const opened = await navigator.mediaDevices.getUserMedia({
        video: { facingMode: side, ...size },
      });
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
    element.play().catch(() => {}); // refused while the page is hidden; it plays when shown again
    let running = true;
    const loop = async () => {
      let last = performance.now();
      while (running) {
        await nextFrame(element);
        if (!running || element.videoWidth === 0) continue;
        try {
          const frame = await createImageBitmap(element);
          const found = await runner.api.classifyFrame(transfer(frame, [frame]));
          if (!running) return;
          const now = performance.now();
          const seconds = (now - last) / 1000;
          setRate((before) => (before === 0 ? 1 / seconds : before * 0.8 + 0.2 / seconds));
          last = now;
          setAnswer(found);
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
              aria-label="What the camera sees"
            />
            <span class="aim" aria-hidden="true" />
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
            <p>Every frame is classified on this device; none leaves it.</p>
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
          <Classes classes={answer.classes} />
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

function nextFrame(video: HTMLVideoElement): Promise<unknown> {
  return new Promise((resolve) => {
    if ("requestVideoFrameCallback" in video) video.requestVideoFrameCallback(resolve);
    else requestAnimationFrame(resolve);
  });
}
