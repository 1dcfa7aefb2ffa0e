import { describe, expect, it } from "vitest";

import { age, duration, moment, number, probability, withUnit } from "./format";

describe("values as people read them", () => {
  it.each([
    [null, "–"],
    [Number.NaN, "–"],
    [Number.POSITIVE_INFINITY, "–"],
    [0, "0"],
    [6.2345, "6.23"],
    [45.678, "45.7"],
    [1234.5, "1,235"],
    [0.01234, "0.012"],
    [1e300, "1.00e+300"],
    [-3e-9, "-3.00e-9"],
  ])("%s is %s", (value, text) => expect(number(value)).toBe(text));

  it("keeps unit and number together", () => expect(withUnit(6.2, "m/s²")).toBe("6.2\u202fm/s²"));
  it("gives an unknown value no unit", () => expect(withUnit(null, "kW")).toBe("–"));

  it.each([
    [0.001, "<\u202f1\u202f%"],
    [0.999, ">\u202f99\u202f%"],
    [0.834, "83\u202f%"],
    [0, "0\u202f%"],
    [null, "–"],
  ])("never rounds %s to never or always", (p, text) => expect(probability(p)).toBe(text));

  it.each([
    [4, "4\u202fs"],
    [59.4, "59\u202fs"],
    [420, "7\u202fmin"],
    [3_660, "1\u202fh 01\u202fmin"],
    [187_200, "2\u202fd 4\u202fh"],
    [-5, "0\u202fs"],
  ])("%s s last %s", (seconds, text) => expect(duration(seconds)).toBe(text));

  it("says nothing of the age of what is no time", () => {
    expect(age("yesterday", 0)).toBe("–");
    expect(age(null, 0)).toBe("–");
    expect(moment("nonsense")).toBe("–");
  });
});
