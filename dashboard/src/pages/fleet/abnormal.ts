/** What is abnormal about a machine, and how bad. Pure. */
import type { Indicator, MachineRow } from "../../api/types";
import { s } from "../../strings";
import { ms } from "../../time/format";
import { deviation, severity } from "../../ui/scale";

/** Levels of ui/scale's severity. */
const BEYOND_WARNING = 3;
const BEYOND_ALARM = 4;

/** Alarms come before predictions, predictions before data faults. 0 = nothing to see. */
export function rank(machine: MachineRow): number {
  const { alarms } = machine;
  if (alarms.top) return 100 - alarms.top.priority * 10 + (alarms.unacknowledged ? 5 : 0);
  if (machine.risk === "high") return 40;
  if (worst(machine)?.level === BEYOND_ALARM) return 35;
  if (machine.data_quality.status === "instrument_fault" || machine.data_quality.status === "no_data") return 30;
  if (machine.risk === "elevated") return 20;
  if (worst(machine)?.level === BEYOND_WARNING) return 15;
  if (machine.data_quality.status === "degraded") return 10;
  return 0;
}

export const isAbnormal = (machine: MachineRow): boolean => rank(machine) > 0;

export function byRank(a: MachineRow, b: MachineRow): number {
  return (
    rank(b) - rank(a) ||
    (b.probability ?? 0) - (a.probability ?? 0) ||
    (ms(a.abnormal_since) ?? Infinity) - (ms(b.abnormal_since) ?? Infinity) ||
    a.machine_id.localeCompare(b.machine_id)
  );
}

/** One line that says what it is. */
export function what(machine: MachineRow): string {
  if (machine.alarms.top) return machine.alarms.top.title;
  if (machine.risk === "high" || machine.risk === "elevated") {
    return machine.failure_mode?.title ?? s.fleet.riskText(s.risk[machine.risk]);
  }
  if (machine.data_quality.status !== "good") return s.fleet.data(s.quality[machine.data_quality.status]);
  const furthest = worst(machine);
  return furthest && furthest.level >= BEYOND_WARNING ? s.fleet.limit(furthest.indicator.title) : "";
}

/** The indicator furthest from normal, by limits first and then by the band's width. */
export function worst(machine: MachineRow): { indicator: Indicator; level: number } | null {
  let found: { indicator: Indicator; level: number; distance: number } | null = null;
  for (const indicator of machine.indicators) {
    if (indicator.value === null) continue;
    const level = severity(indicator.value, indicator);
    const distance = deviation(indicator.value, indicator) ?? 0;
    if (!found || level > found.level || (level === found.level && distance > found.distance)) {
      found = { indicator, level, distance };
    }
  }
  return found;
}

export function matches(machine: MachineRow, text: string): boolean {
  const wanted = text.trim().toLowerCase();
  if (!wanted) return true;
  return [machine.machine_id, machine.site, machine.area, machine.owner ?? ""].some((field) =>
    field.toLowerCase().includes(wanted),
  );
}

export interface Place {
  site: string;
  area: string;
  machines: MachineRow[];
}

/** Machines by site and area, both by name; the place of a machine never moves. */
export function byArea(machines: readonly MachineRow[]): Place[] {
  const places = new Map<string, Place>();
  for (const machine of machines) {
    const key = JSON.stringify([machine.site, machine.area]);
    const place = places.get(key) ?? { site: machine.site, area: machine.area, machines: [] };
    place.machines.push(machine);
    places.set(key, place);
  }
  const inOrder = new Intl.Collator("en", { numeric: true }).compare;
  for (const place of places.values()) place.machines.sort((a, b) => inOrder(a.machine_id, b.machine_id));
  return [...places.values()].sort((a, b) => inOrder(a.site, b.site) || inOrder(a.area, b.area));
}

/** Length of what all ids begin with, up to their last separator: tiles leave it out. */
export function commonPrefix(ids: readonly string[]): number {
  const first = ids[0] ?? "";
  if (ids.length < 2) return 0;
  let length = first.length;
  for (const id of ids) while (!id.startsWith(first.slice(0, length))) length -= 1;
  return Math.max(0, first.slice(0, length).search(/[-_.:/ ][^-_.:/ ]*$/) + 1);
}

/** When it became abnormal: the older of its alarm and its first answer that was not normal. */
export function since(machine: MachineRow): string | null {
  const times = [machine.alarms.top?.raised_at, machine.abnormal_since].filter((t): t is string => ms(t) !== null);
  return times.sort((a, b) => Date.parse(a) - Date.parse(b))[0] ?? null;
}
