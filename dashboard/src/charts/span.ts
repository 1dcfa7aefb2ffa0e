/** The span of time the charts show, and how it moves. Pure. Seconds since 1970. */
import type { Span } from "../api/queries";

export const RANGES = { "1h": 3_600, "8h": 28_800, "1d": 86_400, "7d": 604_800, "30d": 2_592_000, "1y": 31_536_000 } as const;
export type Range = keyof typeof RANGES;
export const isRange = (text: string | undefined): text is Range => text !== undefined && text in RANGES;

const SHORTEST = 60;
const LONGEST = RANGES["1y"] * 5;
const STEPS = 720;

/**
 * The span that ends now. Its end moves in steps of what one point covers, so that following costs
 * a request when there is something new to see, and not a request a second.
 */
export function endingNow(range: Range, now: number): Span {
  const length = RANGES[range];
  const step = followStep(length);
  const to = Math.ceil(now / step) * step;
  return { from: to - length, to };
}

/** Seconds between two ends of a span that follows now. */
export const followStep = (length: number): number => Math.max(5, Math.round(length / STEPS));

/** Move by `share` of the span's length; not beyond now by more than the span itself needs. */
export function moved(span: Span, share: number, now: number): Span {
  const length = span.to - span.from;
  const by = Math.min(length * share, Math.max(0, now - span.to));
  const shift = share > 0 ? by : length * share;
  return { from: span.from + shift, to: span.to + shift };
}

/** Zoom by `factor` (< 1 = closer) around `at`, 0 = left end, 1 = right end. */
export function zoomed(span: Span, factor: number, at = 0.5): Span {
  const length = span.to - span.from;
  const next = Math.min(LONGEST, Math.max(SHORTEST, length * factor));
  const pivot = span.from + length * at;
  return { from: pivot - next * at, to: pivot + next * (1 - at) };
}
