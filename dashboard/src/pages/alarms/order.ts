/** Which alarms stand, which need somebody, and in which order they are shown. Pure. */
import type { Alarm, AlarmSummary } from "../../api/types";
import { ms } from "../../time/format";

const STANDING = new Set(["unacknowledged", "acknowledged", "returned_unacknowledged"]);

/** In the active list: neither put aside by a person, nor by design, nor over. */
export const stands = (alarm: Alarm): boolean => STANDING.has(alarm.state);

export const needsAcknowledging = (alarm: Alarm): boolean =>
  alarm.state === "unacknowledged" || alarm.state === "returned_unacknowledged";

/** Unacknowledged first, then by priority, then the oldest: who has waited longest. */
export function byUrgency(a: Alarm, b: Alarm): number {
  return (
    Number(needsAcknowledging(b)) - Number(needsAcknowledging(a)) ||
    a.priority - b.priority ||
    (ms(a.raised_at) ?? 0) - (ms(b.raised_at) ?? 0) ||
    a.alarm_id.localeCompare(b.alarm_id)
  );
}

/** s until the time to respond is over; negative when it is; null when there is none. */
export function secondsLeft(alarm: Alarm, now: number): number | null {
  const raised = ms(alarm.raised_at);
  if (raised === null || alarm.time_to_respond_s === null) return null;
  return alarm.time_to_respond_s - (now - raised) / 1_000;
}

const NONE: AlarmSummary = { unacknowledged: 0, standing: 0, advisories: 0, top: null };

/** What stands on each machine. */
export function summaries(alarms: readonly Alarm[]): (machineId: string) => AlarmSummary {
  const found = new Map<string, AlarmSummary>();
  for (const alarm of alarms.filter(stands)) {
    const summary = found.get(alarm.machine_id) ?? { ...NONE };
    found.set(alarm.machine_id, summary);
    if (alarm.kind === "advisory") summary.advisories += 1;
    else {
      summary.standing += 1;
      if (needsAcknowledging(alarm)) summary.unacknowledged += 1;
      if (!summary.top || byUrgency(alarm, summary.top) < 0) summary.top = alarm;
    }
  }
  return (machineId) => found.get(machineId) ?? NONE;
}
