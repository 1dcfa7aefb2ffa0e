import { describe, expect, it } from "vitest";

import type { Series } from "../api/types";
import { badStretches, curveOf, gapsOf, summaryOf } from "./series";

const series = (more: Partial<Series>): Series => ({
  machine_id: "m",
  kind: "channel",
  name: "power",
  unit: "kW",
  from: "1970-01-01T00:00:00Z",
  to: "1970-01-01T00:01:00Z",
  bucket_seconds: 10,
  buckets: 6,
  mean: [1, null, null, 4, 5, null],
  min: [0, null, null, 3, 5, null],
  max: [2, null, null, 9, 5, null],
  rms: null,
  count: [3, 0, 0, 3, 3, 0],
  bad_share: [0, null, null, 0.5, 0.6, null],
  gaps: [],
  as_of: "1970-01-01T00:01:00Z",
  ...more,
});

describe("an answer of /history", () => {
  it("has its points in the middle of the buckets", () => expect(curveOf(series({})).t).toEqual([5, 15, 25, 35, 45, 55]));
  it("shows waveforms by their RMS", () => expect(curveOf(series({ rms: [7, 7, 7, 7, 7, 7] })).mean[0]).toBe(7));
  it("has a gap where two buckets in a row are empty, also at the end", () => {
    expect(gapsOf(series({}))).toEqual([{ from: 10, to: 30 }]);
    expect(gapsOf(series({ count: [1, 1, 1, 1, 0, 0], bad_share: [0, 0, 0, 0, null, null] }))).toEqual([{ from: 40, to: 60 }]);
  });
  it("does not call bad data a gap", () => expect(gapsOf(series({ count: [0, 0, 0, 0, 0, 0], bad_share: [1, 1, 1, 1, 1, 1] }))).toEqual([]));
  it("joins bad buckets that touch", () => expect(badStretches(series({}))).toEqual([{ from: 30, to: 50 }]));
  it("sums up what is there and nothing else", () => {
    const { badShare, ...rest } = summaryOf(series({}));
    expect(rest).toEqual({ last: 5, lowest: 0, highest: 9 });
    expect(badShare).toBeCloseTo(1.1 / 3);
  });
  it("without any value has no last one", () => expect(summaryOf(series({ mean: [null, null, null, null, null, null], min: [], max: [], bad_share: [] })).last).toBeNull());
});
