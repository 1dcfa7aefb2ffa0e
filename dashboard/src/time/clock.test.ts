import { afterEach, describe, expect, it, vi } from "vitest";

import { Clock, Ticker } from "./clock";

describe("the server's clock", () => {
  it("is taken from the message that was least late", () => {
    let local = 1_000_000;
    const clock = new Clock(() => local);
    for (const late of [900, 20, 400]) {
      clock.observe(local + 60_000 - late);
      local += 1_000;
    }
    expect(clock.skew).toBe(60_000 - 20);
    expect(clock.now()).toBe(local + 59_980);
  });

  it("is this computer's until the server has said its time, and after nonsense", () => {
    const clock = new Clock(() => 5);
    clock.observe(Number.NaN);
    expect(clock.now()).toBe(5);
  });
});

describe("the tick of the ages", () => {
  afterEach(() => void vi.useRealTimers());

  it("stands still in the background and without listeners", () => {
    vi.useFakeTimers();
    let changed = () => {};
    const page = { visibilityState: "visible" as DocumentVisibilityState, addEventListener: (_: string, f: unknown) => (changed = f as () => void) };
    const ticker = new Ticker(page as never);
    expect(vi.getTimerCount()).toBe(0);
    let ticks = 0;
    const stop = ticker.subscribe(() => (ticks += 1));
    vi.advanceTimersByTime(3_000);
    expect(ticks).toBe(3);
    page.visibilityState = "hidden";
    changed();
    expect(vi.getTimerCount()).toBe(0);
    page.visibilityState = "visible";
    changed();
    expect(ticks).toBe(4);
    stop();
    expect(vi.getTimerCount()).toBe(0);
  });
});
