import { describe, expect, it } from "vitest";

import { LiveStore } from "./store";

const readings = (machine: string, ...rows: [string, number, number, number][]) =>
  ({ type: "readings" as const, position: null, isReplay: false, machines: [{ machine_id: machine, readings: rows }] });

describe("the newest values", () => {
  it("are told once for many messages of one frame", () => {
    let run: () => void = () => undefined;
    const store = new LiveStore((flush) => (run = flush));
    let calls = 0;
    store.subscribe("m", () => (calls += 1));
    for (let i = 0; i < 100; i++) store.apply(readings("m", ["power", i, i, 0]));
    expect(calls).toBe(0);
    run();
    expect(calls).toBe(1);
    expect(store.get("m")?.channels.get("power")).toEqual({ ts: 99, value: 99, quality: 0 });
  });

  it("never go back to an older reading", () => {
    const store = new LiveStore((run) => run());
    store.apply(readings("m", ["power", 5, 50, 0], ["power", 3, 30, 2]));
    expect(store.get("m")?.channels.get("power")).toEqual({ ts: 5, value: 50, quality: 0 });
  });

  it("wake nobody who watches another machine", () => {
    const store = new LiveStore((run) => run());
    let calls = 0;
    store.subscribe("other", () => (calls += 1));
    store.apply(readings("m", ["power", 1, 1, 0]));
    expect(calls).toBe(0);
  });

  it("of machines that left the screen are forgotten", () => {
    const store = new LiveStore((run) => run());
    store.apply(readings("a", ["power", 1, 1, 0]));
    store.apply(readings("b", ["power", 1, 1, 0]));
    store.keep(["b"]);
    expect(store.get("a")).toBeUndefined();
    expect(store.get("b")).toBeDefined();
  });
});
