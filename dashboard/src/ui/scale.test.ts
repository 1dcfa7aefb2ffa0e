import { describe, expect, it } from "vitest";

import { deviation, scaleOf, severity, standing } from "./scale";

const upper = { low: 1, high: 3, warning: 4, alarm: 6 };
const lower = { low: 10, high: 30, warning: 8, alarm: 5 };

describe("where a value stands", () => {
  it.each([
    [2, "inside"],
    [0.5, "below"],
    [3.5, "above"],
    [4, "beyondWarning"],
    [6, "beyondAlarm"],
    [null, "noValue"],
    [Number.NaN, "noValue"],
  ])("%s against upper limits is %s", (value, where) => expect(standing(value, upper)).toBe(where));

  it.each([
    [9, "below"],
    [8, "beyondWarning"],
    [5, "beyondAlarm"],
    [40, "above"],
  ])("%s against lower limits is %s", (value, where) => expect(standing(value, lower)).toBe(where));

  it("orders by limits before distance", () => expect(severity(6, upper)).toBeGreaterThan(severity(3.9, upper)));
  it("measures distance in widths of the normal band", () => expect(deviation(7, upper)).toBe(2));
  it("has no distance without a band", () => expect(deviation(7, { ...upper, low: null })).toBeNull());
});

describe("the scale of a bar", () => {
  it("shows every limit and does not move with the value", () => {
    for (const limits of [upper, lower]) {
      const scale = scaleOf(limits);
      for (const mark of Object.values(limits)) {
        expect(scale.at(mark)).toBeGreaterThan(0);
        expect(scale.at(mark)).toBeLessThan(1);
      }
    }
  });
  it("clamps absurd values to its ends", () => {
    expect(scaleOf(upper).at(1e300)).toBe(1);
    expect(scaleOf(upper).at(-1e300)).toBe(0);
  });
  it("exists without any limit", () => expect(scaleOf({ low: null, high: null, warning: null, alarm: null }).at(0.5)).toBe(0.5));
});
