import { describe, expect, it } from "vitest";

import { RANGES, endingNow, followStep, moved, zoomed } from "./span";

describe("the span of the charts", () => {
  it("ends now, in steps of what a point covers", () => {
    const span = endingNow("1h", 1_000_001);
    expect(span.to - span.from).toBe(3_600);
    expect(span.to).toBeGreaterThanOrEqual(1_000_001);
    expect(span.to - 1_000_001).toBeLessThan(followStep(3_600));
  });
  it("asks again for a year no more often than once in twelve hours", () => expect(followStep(RANGES["1y"])).toBeGreaterThan(12 * 3_600 - 1));
  it("does not move beyond now", () => {
    const span = { from: 0, to: 100 };
    expect(moved(span, 0.5, 120)).toEqual({ from: 20, to: 120 });
    expect(moved(span, 0.5, 90)).toEqual(span);
    expect(moved(span, -0.5, 90)).toEqual({ from: -50, to: 50 });
  });
  it("zooms around the pointer", () => expect(zoomed({ from: 0, to: 1_000 }, 0.5, 0.25)).toEqual({ from: 125, to: 625 }));
  it("neither vanishes nor grows without end", () => {
    let span = { from: 0, to: 1_000 };
    for (let i = 0; i < 60; i++) span = zoomed(span, 0.5);
    expect(span.to - span.from).toBe(60);
    for (let i = 0; i < 99; i++) span = zoomed(span, 2);
    expect(span.to - span.from).toBe(RANGES["1y"] * 5);
  });
});
