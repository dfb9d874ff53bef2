/** What a package says about an image: a list, and a drawing over the image. */

import { useEffect, useRef } from "preact/hooks";
import { type Answer, colourOf, type LabelledBox } from "../core/answers";
import type { ClassProbability } from "../core/classes";
import { mapBack } from "../core/postprocess";
import { percent } from "./components";
import type { Answered } from "./worker";

/** Opacity of a class map, of 255. */
const COVER = 140;
/** Longer side of a drawn class map, because phones limit the area of a canvas. */
const LONGEST = 1024;

/** The answer in words: classes with bars, the classes of a map, or boxes. */
export function AnswerList({ answer }: { answer: Answer }) {
  if (answer.task === "classification") return <Classes classes={answer.classes} />;
  if (answer.task === "segmentation") {
    return (
      <ul class="legend" aria-label="Classes in the image">
        {answer.shares.map(({ index, label, share }) => (
          <Entry key={index} index={index} label={label} value={percent(share)} />
        ))}
      </ul>
    );
  }
  if (answer.boxes.length === 0) return <p>Nothing was found.</p>;
  return (
    <ol class="legend" aria-label="Boxes in the image">
      {answer.boxes.map(({ index, label, score }, i) => (
        <Entry key={i} index={index} label={label} value={percent(score)} />
      ))}
    </ol>
  );
}

/** The most probable classes, with bars. */
function Classes({ classes }: { classes: ClassProbability[] }) {
  return (
    <ol class="classes">
      {classes.map(({ label, probability }) => (
        <li key={label}>
          <span class="label">{label}</span>
          <span class="percent">{percent(probability)}</span>
          <span class="bar" aria-hidden="true">
            <span style={{ width: `${probability * 100}%` }} />
          </span>
        </li>
      ))}
    </ol>
  );
}

function Entry({ index, label, value }: { index: number; label: string; value: string }) {
  return (
    <li>
      <span class="colour" style={{ background: css(index) }} aria-hidden="true" />
      <span class="label">{label}</span>
      <span class="percent">{value}</span>
    </li>
  );
}

/** The answer drawn over its image, which fills the element around it; nothing for a classifier. */
export function Overlay({ answered, mirrored }: { answered: Answered; mirrored?: boolean }) {
  const { answer, width, height } = answered;
  if (answer.task === "segmentation") {
    return <ClassMap map={answer.map} width={width} height={height} mirrored={mirrored} />;
  }
  if (answer.task === "detection") {
    return <Boxes boxes={answer.boxes} width={width} height={height} mirrored={mirrored} />;
  }
  return null;
}

interface Place {
  width: number;
  height: number;
  mirrored?: boolean | undefined;
}

function ClassMap({ map, width, height, mirrored }: { map: Uint16Array } & Place) {
  const canvas = useRef<HTMLCanvasElement>(null);
  useEffect(() => {
    const shrink = Math.min(1, LONGEST / Math.max(width, height));
    const size = {
      width: Math.max(1, Math.round(width * shrink)),
      height: Math.max(1, Math.round(height * shrink)),
    };
    const whole = { width, height };
    const picture = new ImageData(size.width, size.height);
    mapBack(map, whole, size, whole).forEach((index, i) => {
      picture.data.set([...colourOf(index), COVER], 4 * i);
    });
    if (!canvas.current) return;
    Object.assign(canvas.current, size);
    canvas.current.getContext("2d")?.putImageData(picture, 0, 0);
  }, [map, width, height]);
  const shape = mirrored ? "overlay mirrored" : "overlay";
  return <canvas ref={canvas} class={shape} role="img" aria-label="Class map" />;
}

function Boxes({ boxes, width, height, mirrored }: { boxes: LabelledBox[] } & Place) {
  const letters = Math.max(width, height) / 32;
  // The best one last: on top.
  return (
    <svg class="overlay" viewBox={`0 0 ${width} ${height}`} role="img" aria-label="Boxes">
      {[...boxes].reverse().map(({ index, label, score, box: [left, top, right, bottom] }, i) => {
        const x = mirrored ? width - right : left;
        return (
          <g key={i} style={{ "--colour": css(index) }}>
            <rect x={x} y={top} width={right - left} height={bottom - top} />
            <text x={x + letters / 4} y={Math.max(top, letters)} font-size={letters}>
              {label} {percent(score)}
            </text>
          </g>
        );
      })}
    </svg>
  );
}

function css(index: number): string {
  return `rgb(${colourOf(index).join(" ")})`;
}
