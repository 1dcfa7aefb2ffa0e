/** Where a value stands against its normal band and limits, and where that is on a bar. Pure. */

export interface Limits {
  low: number | null;
  high: number | null;
  warning: number | null;
  alarm: number | null;
}

export type Standing = "beyondAlarm" | "beyondWarning" | "above" | "below" | "inside" | "noValue";

/** Limits may be upper (alarm ≥ warning, the usual case) or lower ones. */
export function standing(value: number | null, limits: Limits): Standing {
  if (value === null || !Number.isFinite(value)) return "noValue";
  const isUpper = limits.alarm === null || limits.warning === null || limits.alarm >= limits.warning;
  const beyond = (limit: number | null) => limit !== null && (isUpper ? value >= limit : value <= limit);
  if (beyond(limits.alarm)) return "beyondAlarm";
  if (beyond(limits.warning)) return "beyondWarning";
  if (limits.high !== null && value > limits.high) return "above";
  if (limits.low !== null && value < limits.low) return "below";
  return "inside";
}

const SEVERITY: Record<Standing, number> = {
  beyondAlarm: 4,
  beyondWarning: 3,
  above: 2,
  below: 2,
  inside: 0,
  noValue: 1,
};
export const severity = (value: number | null, limits: Limits): number => SEVERITY[standing(value, limits)];

/** Distance from the normal band in widths of the band; 0 inside, null when it cannot be said. */
export function deviation(value: number | null, limits: Limits): number | null {
  const { low, high } = limits;
  if (value === null || low === null || high === null || !(high > low)) return null;
  if (value > high) return (value - high) / (high - low);
  if (value < low) return (low - value) / (high - low);
  return 0;
}

export interface Scale {
  min: number;
  max: number;
  /** Position of a value, 0 to 1, clamped to the ends. */
  at: (value: number) => number;
}

/**
 * A scale that gives the normal band the middle third of the bar when there is one, and that always
 * contains the limits. It depends on the limits alone, so that it does not move with the value.
 */
export function scaleOf(limits: Limits): Scale {
  const { low, high, warning, alarm } = limits;
  const marks = [low, high, warning, alarm].filter((v): v is number => v !== null && Number.isFinite(v));
  let min = 0;
  let max = 1;
  if (low !== null && high !== null && high > low) {
    min = low - (high - low);
    max = high + (high - low);
  } else if (marks.length) {
    min = Math.min(0, ...marks);
    max = Math.max(0, ...marks);
  }
  if (marks.length) {
    const span = Math.max(max, ...marks) - Math.min(min, ...marks) || Math.abs(marks[0] ?? 1) || 1;
    if (Math.max(...marks) >= max) max = Math.max(...marks) + span * 0.1;
    if (Math.min(...marks) <= min && Math.min(...marks) !== 0) min = Math.min(...marks) - span * 0.1;
  }
  return { min, max, at: (value) => Math.min(1, Math.max(0, (value - min) / (max - min || 1))) };
}
