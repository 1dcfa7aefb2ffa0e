/** An answer of /history as what a chart and a table draw. Pure. */
import type { Series } from "../api/types";

export interface Curve {
  /** s since 1970, the middle of each bucket. */
  t: number[];
  min: (number | null)[];
  mean: (number | null)[];
  max: (number | null)[];
}

/** Waveforms are shown by their RMS: the mean of an acceleration is near zero and says nothing. */
export function curveOf(series: Series): Curve {
  const begin = Date.parse(series.from) / 1_000;
  const t = Array.from({ length: series.buckets }, (_, i) => begin + (i + 0.5) * series.bucket_seconds);
  if (series.rms) return { t, min: series.rms, mean: series.rms, max: series.rms };
  return { t, min: series.min, mean: series.mean, max: series.max };
}

export interface Mark {
  from: number;
  to: number;
}

/** Stretches in which a noticeable share of what arrived was not good. */
export function badStretches(series: Series, least = 0.05): Mark[] {
  const begin = Date.parse(series.from) / 1_000;
  const found: Mark[] = [];
  series.bad_share.forEach((share, i) => {
    if (share === null || share < least) return;
    const from = begin + i * series.bucket_seconds;
    const last = found.at(-1);
    if (last && Math.abs(last.to - from) < 1e-6 * series.bucket_seconds + 1e-3) last.to = from + series.bucket_seconds;
    else found.push({ from, to: from + series.bucket_seconds });
  });
  return found;
}

/** Two or more buckets in a row in which nothing arrived; at the ends of the span as well. */
export function gapsOf(series: Series): Mark[] {
  const begin = Date.parse(series.from) / 1_000;
  const found: Mark[] = [];
  let first: number | null = null;
  for (let i = 0; i <= series.count.length; i++) {
    const isEmpty = i < series.count.length && series.count[i] === 0 && series.bad_share[i] === null;
    if (isEmpty) first ??= i;
    else if (first !== null) {
      const mark = { from: begin + first * series.bucket_seconds, to: begin + i * series.bucket_seconds };
      if (i - first >= 2) found.push(mark);
      first = null;
    }
  }
  return found;
}

export interface Summary {
  last: number | null;
  lowest: number | null;
  highest: number | null;
  badShare: number;
}

export function summaryOf(series: Series): Summary {
  const curve = curveOf(series);
  const known = (values: readonly (number | null)[]) => values.filter((v): v is number => v !== null);
  const lows = known(curve.min);
  const highs = known(curve.max);
  const shares = known(series.bad_share);
  return {
    last: curve.mean.findLast((v) => v !== null) ?? null,
    lowest: lows.length ? lows.reduce((a, b) => Math.min(a, b)) : null,
    highest: highs.length ? highs.reduce((a, b) => Math.max(a, b)) : null,
    badShare: shares.length ? shares.reduce((a, b) => a + b, 0) / shares.length : 0,
  };
}
