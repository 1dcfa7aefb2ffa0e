/** Numbers, ages and times as people read them. Pure; unknown is a dash, never a zero. */
import { s } from "../strings";

const DASH = "–";

/** Three significant figures without exponent for ordinary sizes; absurd ones keep theirs. */
export function number(value: number | null | undefined): string {
  if (value === null || value === undefined || !Number.isFinite(value)) return DASH;
  const size = Math.abs(value);
  if (size !== 0 && (size >= 1e7 || size < 1e-4)) return value.toExponential(2);
  const digits = size >= 100 || size === 0 ? 0 : size >= 10 ? 1 : size >= 1 ? 2 : 3;
  return value.toLocaleString("en", { maximumFractionDigits: digits, minimumFractionDigits: 0 });
}

export function withUnit(value: number | null | undefined, unit: string): string {
  const text = number(value);
  return text === DASH || !unit ? text : `${text}\u202f${unit}`;
}

/** A probability; tiny and near-certain ones are not rounded to never and always. */
export function probability(p: number | null | undefined): string {
  if (p === null || p === undefined || !Number.isFinite(p)) return DASH;
  if (p > 0 && p < 0.01) return "<\u202f1\u202f%";
  if (p < 1 && p > 0.99) return ">\u202f99\u202f%";
  return `${Math.round(p * 100)}\u202f%`;
}

export const share = (p: number | null | undefined): string =>
  p === null || p === undefined || !Number.isFinite(p) ? DASH : `${(p * 100).toFixed(p < 0.1 ? 1 : 0)}\u202f%`;

/** A length of time: `42 s`, `7 min`, `3 h 05 min`, `2 d 4 h`. */
export function duration(seconds: number | null | undefined): string {
  if (seconds === null || seconds === undefined || !Number.isFinite(seconds)) return DASH;
  const total = Math.max(0, Math.round(seconds));
  const u = s.units;
  if (total < 60) return `${total}\u202f${u.second}`;
  const minutes = Math.floor(total / 60);
  if (minutes < 60) return `${minutes}\u202f${u.minute}`;
  const hours = Math.floor(minutes / 60);
  const rest = minutes % 60;
  if (hours < 24) {
    return rest ? `${hours}\u202f${u.hour} ${String(rest).padStart(2, "0")}\u202f${u.minute}` : `${hours}\u202f${u.hour}`;
  }
  const days = Math.floor(hours / 24);
  return hours % 24 ? `${days}\u202f${u.day} ${hours % 24}\u202f${u.hour}` : `${days}\u202f${u.day}`;
}

/** ms since 1970 of an ISO time; null when there is none or it is no time. */
export function ms(iso: string | null | undefined): number | null {
  if (!iso) return null;
  const at = Date.parse(iso);
  return Number.isFinite(at) ? at : null;
}

/** Age of `iso` at `now` (ms). Times slightly ahead (clock jitter) are age 0. */
export function age(iso: string | null | undefined, now: number): string {
  const at = ms(iso);
  return at === null ? DASH : duration((now - at) / 1_000);
}

export type Zone = "local" | "utc";
const ZONE_KEY = "aegisops.zone";
const formats = new Map<string, Intl.DateTimeFormat>();

function format(kind: "time" | "moment" | "day" | "zone", zone: Zone): Intl.DateTimeFormat {
  const key = kind + zone;
  let made = formats.get(key);
  if (!made) {
    const timeZone = zone === "utc" ? { timeZone: "UTC" } : {};
    const clock: Intl.DateTimeFormatOptions = {
      hour: "2-digit",
      minute: "2-digit",
      second: "2-digit",
      hourCycle: "h23",
    };
    const day: Intl.DateTimeFormatOptions = { year: "numeric", month: "2-digit", day: "2-digit" };
    const options: Record<typeof kind, Intl.DateTimeFormatOptions> = {
      time: clock,
      moment: { ...day, ...clock },
      day,
      zone: { timeZoneName: "short" },
    };
    made = new Intl.DateTimeFormat("sv-SE", { ...options[kind], ...timeZone });
    formats.set(key, made);
  }
  return made;
}

let zone: Zone = localStorage.getItem(ZONE_KEY) === "utc" ? "utc" : "local";
const zoneListeners = new Set<() => void>();

/** The zone all times are shown in. */
export const currentZone = (): Zone => zone;

export function chooseZone(next: Zone): void {
  zone = next;
  localStorage.setItem(ZONE_KEY, next);
  for (const listener of zoneListeners) listener();
}

export function subscribeZone(listener: () => void): () => void {
  zoneListeners.add(listener);
  return () => zoneListeners.delete(listener);
}

/** `2026-03-02 03:12:07` in the chosen zone; the zone's name is on every page. */
export function moment(at: number | string | null | undefined): string {
  const value = typeof at === "string" ? ms(at) : at;
  return value === null || value === undefined || !Number.isFinite(value) ? DASH : format("moment", zone).format(value);
}

export const timeOfDay = (at: number): string => format("time", zone).format(at);
export const dayOf = (at: number): string => format("day", zone).format(at);

/** Short name of the zone, for example `UTC` or `GMT+1`. */
export function zoneName(): string {
  if (zone === "utc") return "UTC";
  const part = format("zone", zone).formatToParts(Date.now()).find((p) => p.type === "timeZoneName");
  return part?.value ?? "";
}
