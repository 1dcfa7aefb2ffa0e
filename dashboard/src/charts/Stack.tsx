/** Curves and events on one time axis, with the buttons, keys and gestures that move it. */
import { useQueries, useQuery } from "@tanstack/react-query";
import { useEffect, useRef } from "react";

import { history, machineEvents, type SeriesName, type Span } from "../api/queries";
import type { Alarm, Series } from "../api/types";
import { s } from "../strings";
import { duration, moment, number, probability, share, withUnit } from "../time/format";
import { ProblemNote } from "../ui/Loaded";
import type { Limits } from "../ui/scale";
import { Lane, type Happening } from "./Lane";
import { LEFT, Pane, RIGHT } from "./Pane";
import { gapsOf, summaryOf } from "./series";
import { moved, zoomed } from "./span";

const POINTS = 600;
const ZOOM = 0.5;
const STEP = 0.25;

export interface Wanted extends SeriesName {
  title: string;
  limits: Limits;
}

export interface StackProps {
  machineId: string;
  wanted: readonly Wanted[];
  span: Span;
  now: () => number;
  alarms: readonly Alarm[];
  onSpan: (span: Span) => void;
  onFollow: () => void;
}

export function Stack({ machineId, wanted, span, now, alarms, onSpan, onFollow }: StackProps) {
  const results = useQueries({ queries: wanted.map((w) => history(machineId, w, span, POINTS)) });
  const events = useQuery(machineEvents(machineId, span));
  const element = useRef<HTMLDivElement>(null);
  const latest = useRef({ span, onSpan });
  latest.current = { span, onSpan };

  useEffect(() => {
    const box = element.current;
    if (!box) return;
    // Not passive: the wheel zooms here instead of scrolling, but only with the axis in focus or Ctrl.
    const wheel = (event: WheelEvent) => {
      if (!event.ctrlKey && !box.contains(document.activeElement)) return;
      event.preventDefault();
      const area = box.getBoundingClientRect();
      const at = (event.clientX - area.left - LEFT) / (area.width - LEFT - RIGHT);
      const { span: shown, onSpan: change } = latest.current;
      change(event.shiftKey ? moved(shown, Math.sign(event.deltaY) * 0.1, now()) : zoomed(shown, event.deltaY > 0 ? 1.25 : 0.8, Math.min(1, Math.max(0, at))));
    };
    box.addEventListener("wheel", wheel, { passive: false });
    return () => box.removeEventListener("wheel", wheel);
  }, [now]);

  const keys = (event: React.KeyboardEvent) => {
    const next = {
      ArrowLeft: () => onSpan(moved(span, -STEP, now())),
      ArrowRight: () => onSpan(moved(span, STEP, now())),
      "+": () => onSpan(zoomed(span, ZOOM)),
      "-": () => onSpan(zoomed(span, 1 / ZOOM)),
      Home: onFollow,
    }[event.key];
    if (!next) return;
    event.preventDefault();
    next();
  };

  const failed = results.find((r) => r.error)?.error ?? events.error;
  const happenings: Happening[] = [
    ...(events.data?.events ?? []).filter((e) => e.source !== "alarm").map((e, i) => ({
      key: `${e.at}/${i}`,
      at: Date.parse(e.at) / 1_000,
      until: null,
      kind: e.source === "feedback" ? "feedback" : e.type,
      title: [e.code, e.detail].filter(Boolean).join(" "),
    })),
    ...(events.data?.events ?? []).filter((e) => e.source === "alarm").map((e, i) => ({
      key: `a${e.at}/${i}`,
      at: Date.parse(e.at) / 1_000,
      until: null,
      kind: "alarm",
      title: [e.type, e.code].filter(Boolean).join(" "),
    })),
    ...alarms.filter((a) => a.raised_at !== null).map((a) => ({
      key: a.alarm_id,
      at: Date.parse(a.raised_at ?? "") / 1_000,
      until: a.is_active ? now() : Date.parse(a.returned_at ?? a.raised_at ?? "") / 1_000,
      kind: a.kind,
      title: a.title,
    })),
  ];
  const bucket = results.find((r) => r.data)?.data?.bucket_seconds;
  return (
    <>
      {failed && <ProblemNote error={failed} />}
      <div
        className="stack"
        ref={element}
        tabIndex={0}
        role="group"
        aria-label={`${s.machine.alone}. ${s.machine.chartHelp}`}
        onKeyDown={keys}
        onDoubleClick={onFollow}
      >
        {wanted.map((w, i) => {
          const series = results[i]?.data as Series | undefined;
          const isLast = i === wanted.length - 1;
          return (
            <section key={`${w.kind}/${w.name}`} className="stack-pane" data-kind={w.kind} data-pending={results[i]?.isFetching}>
              <h3>
                {w.title} <span className="unit">{series ? unitOf(series) : ""}</span>
                {series && <Notes series={series} />}
              </h3>
              {series ? (
                <Pane
                  series={series}
                  span={span}
                  limits={w.limits}
                  style={{ isPredicted: w.kind === "risk", isPercent: w.kind === "risk" }}
                  hasAxis={isLast}
                  label={describe(w.title, series)}
                  onSelect={onSpan}
                />
              ) : (
                <div className="pane" aria-hidden="true" />
              )}
            </section>
          );
        })}
        <Lane happenings={happenings} span={span} />
        <p className="stack-foot">
          {moment(span.from * 1_000)} – {moment(span.to * 1_000)}
          {bucket !== undefined && <> · {s.machine.bucket(duration(bucket))}</>} · {s.machine.chartHelp}
        </p>
      </div>
      <AsTable wanted={wanted} results={results.map((r) => r.data as Series | undefined)} happenings={happenings} />
    </>
  );
}

const unitOf = (series: Series): string => (series.kind === "risk" || series.unit === "1" ? "" : series.unit);

const value = (series: Series, v: number | null): string => (series.kind === "risk" ? probability(v) : withUnit(v, unitOf(series)));

function describe(title: string, series: Series): string {
  const { last, lowest, highest } = summaryOf(series);
  return s.machine.chartText(title, value(series, last), value(series, lowest), value(series, highest));
}

function Notes({ series }: { series: Series }) {
  const { last, badShare } = summaryOf(series);
  const notes = [
    last === null ? s.machine.noData : value(series, last),
    gapsOf(series).length ? s.machine.gaps(gapsOf(series).length) : "",
    badShare > 0.0005 ? s.machine.badShare(share(badShare)) : "",
  ].filter(Boolean);
  return <small>{notes.join(" · ")}</small>;
}

function AsTable({ wanted, results, happenings }: { wanted: readonly Wanted[]; results: readonly (Series | undefined)[]; happenings: readonly Happening[] }) {
  return (
    <details className="as-table">
      <summary>{s.machine.asTable}</summary>
      <table className="rows">
        <thead>
          <tr>
            <th scope="col">{s.machine.signals}</th>
            <th scope="col">{s.machine.last}</th>
            <th scope="col">{s.machine.lowest}</th>
            <th scope="col">{s.machine.highest}</th>
            <th scope="col">{s.quality.label}</th>
          </tr>
        </thead>
        <tbody>
          {wanted.map((w, i) => {
            const series = results[i];
            if (!series) return null;
            const { last, lowest, highest, badShare } = summaryOf(series);
            return (
              <tr key={`${w.kind}/${w.name}`}>
                <th scope="row">{w.title}</th>
                <td>{value(series, last)}</td>
                <td>{value(series, lowest)}</td>
                <td>{value(series, highest)}</td>
                <td>
                  {s.machine.gaps(gapsOf(series).length)} · {s.machine.badShare(share(badShare))} · {number(series.count.reduce((a, b) => a + b, 0))}
                </td>
              </tr>
            );
          })}
        </tbody>
      </table>
      <ul>
        {happenings.map((h) => (
          <li key={h.key}>
            {moment(h.at * 1_000)} {s.machine.eventTypes[h.kind] ?? h.kind} {h.title}
          </li>
        ))}
      </ul>
    </details>
  );
}
