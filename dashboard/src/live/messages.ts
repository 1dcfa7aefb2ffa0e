/** Frames of the live telemetry (docs/telemetry.md), checked before anyone uses them. Pure. */
import type { Alarm } from "../api/types";

/** channel, ts (µs), value, OPC UA quality (0 good, 1 uncertain, 2 bad). */
export type Reading = readonly [string, number, number, number];
export interface MachineReadings {
  machine_id: string;
  readings: Reading[];
}
export interface MachineFeatures {
  machine_id: string;
  /** µs. */
  ts: number;
  coverage: number | null;
  features: Record<string, number | null>;
}
export interface LivePrediction {
  machine_id: string;
  prediction_id: string;
  asked_at: string;
  probability: number | null;
  risk: string;
  failure_mode: string | null;
  served_by: string;
  cause: string | null;
}

export type Frame =
  | { type: "hello"; serverTime: number; heartbeat: number; position: string | null }
  | { type: "heartbeat"; serverTime: number; position: string | null; isLive: boolean }
  | { type: "readings"; position: string | null; isReplay: boolean; machines: MachineReadings[] }
  | { type: "features"; machines: MachineFeatures[] }
  | { type: "predictions"; machines: LivePrediction[] }
  | { type: "alarms"; alarms: Alarm[] }
  | { type: "dropped"; messages: number; resumeFrom: string | null }
  | { type: "gap"; reason: string; machineIds: string[] | null }
  | { type: "closed"; reason: string; resumeFrom: string | null }
  | { type: "problem"; status: number; detail: string }
  | { type: "other" };

type Json = Record<string, unknown>;
const isObject = (v: unknown): v is Json => typeof v === "object" && v !== null && !Array.isArray(v);
const list = (v: unknown): unknown[] => (Array.isArray(v) ? v : []);
const text = (v: unknown): string | null => (typeof v === "string" ? v : null);
const finite = (v: unknown): number | null => (typeof v === "number" && Number.isFinite(v) ? v : null);
const time = (v: unknown): number => (typeof v === "string" ? Date.parse(v) : NaN);

/** The frame of a message; null when it is not one (malformed, or another version). */
export function parse(data: unknown): Frame | null {
  if (typeof data !== "string") return null;
  let body: unknown;
  try {
    body = JSON.parse(data);
  } catch {
    return null;
  }
  if (!isObject(body) || body["v"] !== 1 || typeof body["type"] !== "string") return null;
  const position = text(body["position"]);
  switch (body["type"]) {
    case "hello":
      return {
        type: "hello",
        serverTime: time(body["server_time"]),
        heartbeat: finite(body["heartbeat_seconds"]) ?? 5,
        position,
      };
    case "heartbeat":
      return {
        type: "heartbeat",
        serverTime: time(body["server_time"]),
        position,
        isLive: body["is_live"] !== false,
      };
    case "readings":
      return {
        type: "readings",
        position,
        isReplay: body["is_replay"] === true,
        machines: list(body["machines"]).filter(isObject).flatMap(readingsOf),
      };
    case "features":
      return { type: "features", machines: list(body["machines"]).filter(isObject).flatMap(featuresOf) };
    case "predictions":
      return { type: "predictions", machines: list(body["machines"]).filter(isObject).flatMap(predictionOf) };
    case "alarms":
      return { type: "alarms", alarms: list(body["alarms"]).filter(isAlarm) };
    case "dropped":
      return { type: "dropped", messages: finite(body["messages"]) ?? 0, resumeFrom: text(body["resume_from"]) };
    case "gap":
      return {
        type: "gap",
        reason: text(body["reason"]) ?? "",
        machineIds: Array.isArray(body["machine_ids"])
          ? body["machine_ids"].filter((id): id is string => typeof id === "string")
          : null,
      };
    case "closed":
      return { type: "closed", reason: text(body["reason"]) ?? "", resumeFrom: text(body["resume_from"]) };
    case "problem": {
      const problem = isObject(body["problem"]) ? body["problem"] : {};
      return { type: "problem", status: finite(problem["status"]) ?? 0, detail: text(problem["detail"]) ?? "" };
    }
    default:
      return { type: "other" };
  }
}

function readingsOf(machine: Json): MachineReadings[] {
  const id = text(machine["machine_id"]);
  if (id === null) return [];
  const readings: Reading[] = [];
  for (const batch of list(machine["batches"]).filter(isObject)) {
    for (const row of list(batch["readings"])) {
      const [channel, ts, value, quality] = list(row);
      if (typeof channel === "string" && finite(ts) !== null && finite(value) !== null) {
        readings.push([channel, ts as number, value as number, finite(quality) ?? 0]);
      }
    }
    for (const row of list(batch["waveforms"])) {
      const [channel, ts, , values, quality] = list(row);
      const samples = list(values).filter((v): v is number => finite(v) !== null);
      if (typeof channel === "string" && finite(ts) !== null && samples.length) {
        readings.push([channel, ts as number, rms(samples), finite(quality) ?? 0]);
      }
    }
  }
  return [{ machine_id: id, readings }];
}

/** Root mean square: what a burst of samples is shown as. */
export function rms(samples: readonly number[]): number {
  return Math.sqrt(samples.reduce((sum, v) => sum + v * v, 0) / samples.length);
}

function featuresOf(machine: Json): MachineFeatures[] {
  const id = text(machine["machine_id"]);
  const ts = finite(machine["ts"]);
  if (id === null || ts === null || !isObject(machine["features"])) return [];
  const features: Record<string, number | null> = {};
  for (const [name, value] of Object.entries(machine["features"])) features[name] = finite(value);
  return [{ machine_id: id, ts, coverage: finite(machine["coverage"]), features }];
}

function predictionOf(row: Json): LivePrediction[] {
  const id = text(row["machine_id"]);
  if (id === null) return [];
  return [
    {
      machine_id: id,
      prediction_id: text(row["prediction_id"]) ?? "",
      asked_at: text(row["asked_at"]) ?? "",
      probability: finite(row["probability"]),
      risk: text(row["risk"]) ?? "unknown",
      failure_mode: text(row["failure_mode"]),
      served_by: text(row["served_by"]) ?? "abstained",
      cause: text(row["cause"]),
    },
  ];
}

function isAlarm(row: unknown): row is Alarm {
  return (
    isObject(row) &&
    typeof row["alarm_id"] === "string" &&
    typeof row["machine_id"] === "string" &&
    typeof row["state"] === "string" &&
    typeof row["version"] === "number"
  );
}
