import { describe, expect, it } from "vitest";

import type { Alarm } from "../../api/types";
import { merged } from "../../api/queries";
import { byUrgency, secondsLeft, stands, summaries } from "./order";

const alarm = (more: Partial<Alarm>): Alarm =>
  ({ alarm_id: "a", machine_id: "m", kind: "alarm", priority: 3, state: "unacknowledged", raised_at: "2026-03-02T00:00:00Z", time_to_respond_s: 600, version: 1, ...more }) as Alarm;

describe("the order of alarms", () => {
  it("is unacknowledged, then priority, then who waited longest", () => {
    const rows = [
      alarm({ alarm_id: "acked1", priority: 1, state: "acknowledged" }),
      alarm({ alarm_id: "new3", raised_at: "2026-03-02T01:00:00Z" }),
      alarm({ alarm_id: "old3" }),
      alarm({ alarm_id: "two", priority: 2, state: "returned_unacknowledged" }),
    ];
    expect(rows.sort(byUrgency).map((a) => a.alarm_id)).toEqual(["two", "old3", "new3", "acked1"]);
  });
  it("leaves out what was put aside", () => {
    for (const state of ["shelved", "suppressed", "out_of_service", "normal"] as const) expect(stands(alarm({ state }))).toBe(false);
  });
  it("counts the time to respond from when it was raised", () => {
    expect(secondsLeft(alarm({}), Date.parse("2026-03-02T00:04:00Z"))).toBe(360);
    expect(secondsLeft(alarm({ raised_at: null }), 0)).toBeNull();
  });
  it("sums up each machine with its most urgent alarm; advisories count apart", () => {
    const of = summaries([alarm({}), alarm({ alarm_id: "b", priority: 1, state: "acknowledged" }), alarm({ alarm_id: "c", kind: "advisory", priority: 1 })]);
    expect(of("m")).toMatchObject({ standing: 2, unacknowledged: 1, advisories: 1 });
    expect(of("m").top?.alarm_id).toBe("a");
    expect(of("other").standing).toBe(0);
  });
});

describe("alarms that come live", () => {
  it("replace older versions and never newer ones", () => {
    const known = [alarm({ version: 5 })];
    expect(merged(known, [alarm({ version: 4, state: "acknowledged" })])[0]?.state).toBe("unacknowledged");
    expect(merged(known, [alarm({ version: 6, state: "acknowledged" })])[0]?.state).toBe("acknowledged");
  });
  it("leave the list when they are over", () => expect(merged([alarm({})], [alarm({ version: 2, state: "normal" })])).toEqual([]));
});
