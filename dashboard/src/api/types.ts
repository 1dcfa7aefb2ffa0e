/** The shapes the pages work with, by the names of the field. */
import type { components } from "./schema";
import type { Outcome } from "./vocabulary";

type Schemas = components["schemas"];

export type FleetMachine = Schemas["FleetMachine"] & { indicators: Indicator[] };
export type Fleet = Omit<Schemas["FleetPage"], "machines"> & { machines: FleetMachine[] };
export type Health = Schemas["Health"];
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
  machine_class: string;
  site: string;
  area: string;
  priority: Priority;
  state: AlarmState;
  title: string;
  cause: string;
  consequence: string;
  response: string;
  procedure: string | null;
  time_to_respond_s: number | null;
  owner: string;
  detail: string;
  value: number | null;
  unit: string;
  setpoint: number | null;
  is_active: boolean;
  is_chattering: boolean;
  occurrence: number;
  raised_at: string | null;
  returned_at: string | null;
  acknowledged_at: string | null;
  acknowledged_by: string | null;
  comment: string | null;
  shelved_until: string | null;
  shelved_by: string | null;
  shelve_reason: string | null;
  suppressed_by: string | null;
  out_of_service_by: string | null;
  out_of_service_reason: string | null;
  first_out: boolean;
  group: string;
  prediction_id: string | null;
  outcome: Outcome | null;
  changed_at: string | null;
  version: number;
}

export interface FloodGroup {
  cause: string;
  site: string;
  area: string;
  first_out: string;
  count: number;
  alarm_ids: string[];
}

export interface AlarmList {
  alarms: Alarm[];
  flood: { active: boolean; since: string | null; raised_last_10_min: number; groups: FloodGroup[] };
  engine: { is_active: boolean };
  as_of: string;
}

/** One series in buckets of equal width: entry i covers `from` + i × `bucket_seconds`. */
export interface Series {
  machine_id: string;
  kind: "channel" | "feature" | "risk";
  name: string;
  unit: string;
  from: string;
  to: string;
  bucket_seconds: number;
  buckets: number;
  mean: (number | null)[];
  min: (number | null)[];
  max: (number | null)[];
  rms: (number | null)[] | null;
  count: number[];
  bad_share: (number | null)[];
  gaps: { from: string; to: string }[];
  as_of: string;
}

export interface HappenedEvent {
  at: string;
  source: "event" | "feedback" | "alarm";
  type: string;
  code: string;
  detail: string;
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

export type WorkOrder = Schemas["WorkOrder"];

/** The client reads a pair as a list of any length. */
export type Evidence = Omit<Schemas["Evidence"], "inputs"> & {
  inputs: (Omit<Schemas["EvidenceInput"], "class_range"> & { class_range: number[] | null })[];
};

export interface AlarmKpi {
  begin: string;
  end: string;
  annunciated: number;
  per_hour: number;
  peak_per_10_min: number;
  flood_share: number;
  top_10_share: number;
  most_frequent: { alarm_id: string; definition_id: string; machine_id: string; count: number; share: number }[];
  chattering: { alarm_id: string; definition_id: string; machine_id: string; bursts: number }[];
  stale: { alarm_id: string; definition_id: string; machine_id: string; raised_at: string }[];
  standing: number;
  shelved: number;
  suppressed: number;
  out_of_service: number;
  acknowledged_share: number | null;
  median_seconds_to_acknowledge: number | null;
  priorities: Record<string, number>;
}

export type Handover = Schemas["Handover"];
export type ModelVersion = Schemas["ModelInfo"];
export type ClassModels = Schemas["ClassModels"];

export interface SystemStatus {
  status: string;
  version: string;
  uptime_seconds: number;
  dependencies: Record<string, { status: string; detail: string | null; waiting?: number; capacity?: number }>;
  models: { machine_class: string; rung: Rung; version: string | null; refused: { version: string | null; reason: string } | null }[];
  lag?: { app: string; topic: string; messages: number }[];
  freshness?: { stage: string; newest_at: string | null; age_seconds: number | null }[];
}
