/** One curve on the common time axis: mean line, min–max band, normal band, limits, gaps, bad data. */
import { useEffect, useRef } from "react";
import uPlot from "uplot";
import "uplot/dist/uPlot.min.css";

import type { Span } from "../api/queries";
import type { Series } from "../api/types";
import { currentZone, number } from "../time/format";
import type { Limits } from "../ui/scale";
import { badStretches, curveOf, gapsOf, type Mark } from "./series";

/** Widths of the axes, shared with the events lane so that everything stands under one another. */
export const LEFT = 62;
export const RIGHT = 10;
const HEIGHT = 92;
const AXIS = 22;
const STRIP = 5;
const SYNC = "machine";

export interface Style {
  isPredicted: boolean;
  isPercent: boolean;
}

export interface PaneProps {
  series: Series;
  span: Span;
  limits: Limits;
  style: Style;
  hasAxis: boolean;
  label: string;
  onSelect: (span: Span) => void;
}

export function Pane(props: PaneProps) {
  const box = useRef<HTMLDivElement>(null);
  const plot = useRef<uPlot | null>(null);
  const now = useRef(props);
  now.current = props;
  const { series, span, hasAxis, label } = props;

  useEffect(() => {
    const element = box.current;
    if (!element) return;
    const made = new uPlot(options(() => now.current, element.clientWidth || 600), dataOf(now.current), element);
    plot.current = made;
    const observer = new ResizeObserver(([entry]) => {
      const width = Math.floor(entry?.contentRect.width ?? 0);
      if (width > 0 && width !== made.width) made.setSize({ width, height: made.height });
    });
    observer.observe(element);
    return () => {
      observer.disconnect();
      made.destroy();
      plot.current = null;
    };
  }, [hasAxis]);

  useEffect(() => {
    plot.current?.setData(dataOf(now.current), false);
    plot.current?.setScale("x", { min: span.from, max: span.to });
  }, [series, span.from, span.to]);

  return <div className="pane" ref={box} role="img" aria-label={label} />;
}

function dataOf({ series, style }: PaneProps): uPlot.AlignedData {
  const { t, min, mean, max } = curveOf(series);
  const scaled = (values: (number | null)[]) => (style.isPercent ? values.map((v) => (v === null ? null : v * 100)) : values);
  return [t, scaled(min), scaled(mean), scaled(max)];
}

function options(props: () => PaneProps, width: number): uPlot.Options {
  const { hasAxis, style } = props();
  const color = style.isPredicted ? "#44566c" : "#1e2327";
  const hidden = { show: true, stroke: "transparent", width: 0, points: { show: false } };
  return {
    width,
    height: HEIGHT + (hasAxis ? AXIS : 0),
    padding: [4, RIGHT, 0, 0],
    legend: { show: false },
    tzDate: (ts) => (currentZone() === "utc" ? uPlot.tzDate(new Date(ts * 1_000), "UTC") : new Date(ts * 1_000)),
    cursor: {
      sync: { key: SYNC },
      drag: { x: true, y: false, setScale: false },
      points: { size: 5, fill: color },
    },
    scales: {
      x: { time: true, range: () => [props().span.from, props().span.to] },
      y: { range: (_, low, high) => yRange(props(), low, high) },
    },
    axes: [
      {
        show: true,
        size: hasAxis ? AXIS : 0,
        stroke: "#474d53",
        grid: { stroke: "#d3d6d9", width: 1 },
        ticks: { show: hasAxis, size: 4, stroke: "#8b9197" },
        values: hasAxis ? timeLabels : () => [],
        font: "11px system-ui, sans-serif",
        gap: 2,
      },
      {
        size: LEFT,
        stroke: "#474d53",
        grid: { stroke: "#d3d6d9", width: 1 },
        ticks: { size: 4, stroke: "#8b9197" },
        font: "11px system-ui, sans-serif",
        values: (_, splits) => splits.map((v) => (style.isPercent ? (v < 0 || v > 100 ? "" : `${v}\u202f%`) : number(v))),
        space: 26,
      },
    ],
    series: [
      {},
      hidden,
      { stroke: color, width: 1.4, spanGaps: false, points: { show: false }, ...(style.isPredicted ? { dash: [5, 3] } : {}) },
      hidden,
    ],
    bands: [{ series: [3, 1], fill: style.isPredicted ? "rgb(68 86 108 / 18%)" : "rgb(30 35 39 / 20%)" }],
    hooks: {
      drawAxes: [(u) => drawBackground(u, props())],
      draw: [(u) => drawStrips(u, props())],
      setSelect: [
        (u) => {
          const { left, width: selected } = u.select;
          if (selected < 6) return;
          props().onSelect({ from: u.posToVal(left, "x"), to: u.posToVal(left + selected, "x") });
          u.setSelect({ left: 0, top: 0, width: 0, height: 0 }, false);
        },
      ],
    },
  };
}

/** Times in 24 h; the day where it changes, in the order year, month, day. */
function timeLabels(_: uPlot, splits: number[], __: number, ___: number, step: number): string[] {
  let day = "";
  return splits.map((ts) => {
    const date = currentZone() === "utc" ? uPlot.tzDate(new Date(ts * 1_000), "UTC") : new Date(ts * 1_000);
    const two = (n: number) => String(n).padStart(2, "0");
    const today = `${two(date.getMonth() + 1)}-${two(date.getDate())}`;
    if (step >= 28 * 86_400) return `${date.getFullYear()}-${two(date.getMonth() + 1)}`;
    if (step >= 86_400) return today;
    const time = `${two(date.getHours())}:${two(date.getMinutes())}${step < 60 ? `:${two(date.getSeconds())}` : ""}`;
    const text = day && day !== today ? `${today} ${time}` : time;
    day = today;
    return text;
  });
}

/** The data's range, and as much of normal band and warning limit as does not flatten the curve. */
function yRange({ limits, style }: PaneProps, low: number | null, high: number | null): [number, number] {
  if (style.isPercent) return [-6, 106];
  let min = low ?? limits.low ?? 0;
  let max = high ?? limits.high ?? 1;
  const size = max - min || Math.abs(max) * 0.1 || 1;
  for (const mark of [limits.low, limits.high, limits.warning, limits.alarm]) {
    if (mark === null) continue;
    if (mark > max && mark - max < size * 2.5) max = mark;
    if (mark < min && min - mark < size * 2.5) min = mark;
  }
  const margin = (max - min) * 0.08 || size * 0.5;
  return [min - margin, max + margin];
}

function drawBackground(u: uPlot, { limits, style }: PaneProps): void {
  const { ctx, bbox } = u;
  const factor = style.isPercent ? 100 : 1;
  const y = (value: number) => u.valToPos(value * factor, "y", true);
  const clamp = (value: number) => Math.min(bbox.top + bbox.height, Math.max(bbox.top, value));
  ctx.save();
  if (limits.low !== null && limits.high !== null) {
    ctx.fillStyle = "rgb(154 161 167 / 30%)";
    const top = clamp(y(limits.high));
    ctx.fillRect(bbox.left, top, bbox.width, clamp(y(limits.low)) - top);
  }
  for (const [limit, dash] of [
    [limits.warning, [6, 4]],
    [limits.alarm, []],
  ] as const) {
    if (limit === null) continue;
    const at = y(limit);
    if (at < bbox.top || at > bbox.top + bbox.height) continue;
    ctx.strokeStyle = "#30373d";
    ctx.lineWidth = devicePixelRatio * (dash.length ? 1 : 1.6);
    ctx.setLineDash(dash.map((d) => d * devicePixelRatio));
    ctx.beginPath();
    ctx.moveTo(bbox.left, at);
    ctx.lineTo(bbox.left + bbox.width, at);
    ctx.stroke();
  }
  ctx.restore();
}

/** Under the curve: filled where data was not good, framed where there was none. */
function drawStrips(u: uPlot, { series }: PaneProps): void {
  const { ctx, bbox } = u;
  const height = STRIP * devicePixelRatio;
  const top = bbox.top + bbox.height - height;
  const draw = (marks: readonly Mark[], isFilled: boolean) => {
    for (const mark of marks) {
      const left = Math.max(bbox.left, u.valToPos(mark.from, "x", true));
      const right = Math.min(bbox.left + bbox.width, u.valToPos(mark.to, "x", true));
      if (right <= left) continue;
      if (isFilled) ctx.fillRect(left, top, Math.max(2, right - left), height);
      else {
        ctx.fillStyle = "rgb(48 55 61 / 8%)";
        ctx.fillRect(left, bbox.top, right - left, bbox.height);
        ctx.strokeRect(left + 0.5, top + 0.5, right - left - 1, height - 1);
      }
    }
  };
  ctx.save();
  ctx.strokeStyle = "#30373d";
  ctx.lineWidth = devicePixelRatio;
  draw(gapsOf(series), false);
  ctx.fillStyle = "#30373d";
  draw(badStretches(series), true);
  ctx.restore();
}
