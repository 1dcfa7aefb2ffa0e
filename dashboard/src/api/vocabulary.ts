/** Fixed words of the API that people choose from, in the order they are offered. */
export const OUTCOMES = [
  "confirmed",
  "prevented",
  "false_alarm",
  "sensor_fault",
  "planned_work",
  "unknown",
] as const;
export type Outcome = (typeof OUTCOMES)[number];
