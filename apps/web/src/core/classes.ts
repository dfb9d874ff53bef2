/** From logits to named classes. */

export interface ClassProbability {
  label: string;
  probability: number;
}

/** Compute the softmax in double precision, shifted so that it cannot overflow. */
export function softmax(logits: ArrayLike<number>): number[] {
  const values = Array.from(logits);
  const top = values.reduce((a, b) => Math.max(a, b), Number.NEGATIVE_INFINITY);
  const exponentials = values.map((value) => Math.exp(value - top));
  const sum = exponentials.reduce((a, b) => a + b, 0);
  return exponentials.map((value) => value / sum);
}

/**
 * Return the most probable classes. Equal ones keep the order of the labels.
 */
export function topClasses(
  logits: ArrayLike<number>,
  labels: readonly string[],
  count = 3,
): ClassProbability[] {
  return softmax(logits)
    .map((probability, i) => ({ label: labels[i] ?? String(i), probability }))
    .sort((a, b) => b.probability - a.probability) // stable since ECMAScript 2019
    .slice(0, count);
}
