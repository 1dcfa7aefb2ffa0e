/** The shapes the pages work with, by the names of the field. */
import type { components } from "./schema";
import type { Outcome } from "./vocabulary";

type Schemas = components["schemas"];

export type FleetMachine = Schemas["FleetMachine"] & { indicators?: Indicator[] };
export type Fleet = Omit<Schemas["FleetPage"], "machines"> & { machines: FleetMachine[] };
export type Sites = Schemas["Sites"];

export type Risk = "normal" | "elevated" | "high" | "unknown";
export type Rung = "production" | "anomaly" | "thresholds" | "abstained";
export type DataStatus = "good" | "degraded" | "instrument_fault" | "no_data";
export type Priority = 1 | 2 | 3 | 4;
export type AlarmState =
  | "normal"
  | "unacknowledged"
  | "acknowledged"
  | "returned_unacknowledged"
  | "shelved"
  | "suppressed"
  | "out_of_service";

export interface Indicator {
  feature: string;
  channel: string;
  title: string;
  unit: string;
  value: number | null;
  low: number | null;
  high: number | null;
  warning: number | null;
  alarm: number | null;
}

export interface AlarmSummary {
  unacknowledged: number;
  standing: number;
  advisories: number;
  top: Alarm | null;
}

/** One machine of the fleet with the alarms that stand on it. */
export interface MachineRow extends FleetMachine {
  alarms: AlarmSummary;
}

export interface Alarm {
  alarm_id: string;
  definition_id: string;
  kind: "alarm" | "advisory";
  machine_id: string;
  site: string;
  area: string;
  owner: string;
  priority: Priority;
  state: AlarmState;
  cause: string;
  consequence: string;
  response: string;
  procedure: string | null;
  time_to_respond_s: number | null;
  value: number | null;
  unit: string;
  setpoint: number | null;
  raised_at: string | null;
  returned_at: string | null;
  acknowledged_at: string | null;
  acknowledged_by: string | null;
  shelved_until: string | null;
  shelve_reason: string | null;
  first_out: boolean;
  group: string | null;
  prediction_id: string | null;
  version: number;
}

export interface FloodGroup {
  cause: string;
  first_out: string;
  count: number;
  alarm_ids: string[];
}

export interface AlarmList {
  alarms: Alarm[];
  flood: { active: boolean; since: string | null; groups: FloodGroup[] };
  as_of: string;
}

export interface SeriesData {
  name: string;
  title: string;
  unit: string;
  kind: "channel" | "feature" | "risk";
  normal: { low: number; median: number; high: number } | null;
  limits: { warning: number; alarm: number } | null;
  t: number[];
  min: (number | null)[];
  mean: (number | null)[];
  max: (number | null)[];
  bad: (number | null)[];
  n: number[];
  served_by?: (Rung | null)[];
}

export interface HistoryEvent {
  at: string;
  until: string | null;
  type: string;
  code: string;
  title: string;
  priority: Priority | null;
  ref: string | null;
}

export interface History {
  machine_id: string;
  from: string;
  to: string;
  bucket_seconds: number;
  series: SeriesData[];
  events: HistoryEvent[];
}

export interface ChannelInfo {
  name: string;
  title: string;
  unit: string;
  kind: string;
  period_seconds: number | null;
  low: number | null;
  high: number | null;
  baseline: number | null;
}

export interface FeatureInfo {
  name: string;
  title: string;
  unit: string;
  channel: string;
  statistic: string;
  window_seconds: number | null;
}

export interface MachineClass {
  name: string;
  title: string;
  clock: string;
  horizon_hours: number;
  stale_after_seconds: number;
  channels: ChannelInfo[];
  features: FeatureInfo[];
  thresholds: { feature: string; warning: number; alarm: number; failure_mode: string }[];
  failure_modes: { code: string; title: string; action: string; procedure: string | null }[];
}

export interface WorkOrder {
  work_order_id: string;
  machine_id: string;
  alarm_id: string | null;
  prediction_id: string | null;
  title: string;
  description: string;
  priority: Priority;
  procedure: string | null;
  state: "draft" | "open" | "closed";
  created_at: string;
  created_by: string;
  outcome: Outcome | null;
  closed_at: string | null;
}
