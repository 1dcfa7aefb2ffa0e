import { describe, expect, it } from "vitest";

import { parse, rms } from "./messages";

const text = (body: object) => JSON.stringify({ v: 1, ...body });

describe("frames of the live telemetry", () => {
  it.each([
    undefined,
    new ArrayBuffer(3),
    "",
    "{",
    "null",
    "[]",
    '"text"',
    JSON.stringify({ v: 2, type: "readings" }),
    JSON.stringify({ v: 1 }),
    JSON.stringify({ v: 1, type: 7 }),
  ])("are refused when they are none: %s", (data) => expect(parse(data)).toBeNull());

  it("of an unknown type are no error: types are only ever added", () =>
    expect(parse(text({ type: "weather" }))).toEqual({ type: "other" }));

  it("keep good readings when others in the same frame are broken", () => {
    const frame = parse(
      text({
        type: "readings",
        position: "1-e",
        machines: [
          null,
          { machine_id: 5 },
          {
            machine_id: "m",
            batches: [{ readings: [["power", 1, 2.5, 0], ["power", "x", 1, 0], ["power", 2], 7], waveforms: [["vib", 3, 10, [3, -4], 1], ["vib", 4, 10, [], 0]] }],
          },
        ],
      }),
    );
    expect(frame).toEqual({
      type: "readings",
      position: "1-e",
      isReplay: false,
      machines: [{ machine_id: "m", readings: [["power", 1, 2.5, 0], ["vib", 3, Math.sqrt(12.5), 1]] }],
    });
  });

  it("carry missing features as missing, not as zero", () => {
    const frame = parse(text({ type: "features", machines: [{ machine_id: "m", ts: 1, coverage: 0.9, features: { a: 1, b: null, c: "x" } }] }));
    expect(frame).toMatchObject({ machines: [{ features: { a: 1, b: null, c: null } }] });
  });

  it("of alarms without an id or version are left out", () => {
    const whole = { alarm_id: "a", machine_id: "m", state: "acknowledged", version: 2 };
    const frame = parse(text({ type: "alarms", alarms: [whole, { ...whole, version: "2" }, {}, 3] }));
    expect(frame).toEqual({ type: "alarms", alarms: [whole] });
  });

  it("show a waveform by its root mean square", () => expect(rms([3, -4])).toBeCloseTo(3.5355, 4));
});
