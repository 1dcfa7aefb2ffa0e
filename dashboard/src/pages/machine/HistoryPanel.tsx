/** The machine's past on one time axis; the span is part of the address. */
import { useQuery } from "@tanstack/react-query";
import { useNavigate, useSearch } from "@tanstack/react-router";
import { useCallback, useEffect, useMemo, useState } from "react";

import { machineClasses, type Span } from "../../api/queries";
import type { Alarm, FleetMachine } from "../../api/types";
import { Stack, type Wanted } from "../../charts/Stack";
import { RANGES, endingNow, followStep, isRange, moved, zoomed, type Range } from "../../charts/span";
import { s } from "../../strings";
import { clock, ticker } from "../../time/clock";
import type { Limits } from "../../ui/scale";

const NONE: Limits = { low: null, high: null, warning: null, alarm: null };
const seconds = () => clock.now() / 1_000;

export function HistoryPanel({ row, alarms }: { row: FleetMachine; alarms: readonly Alarm[] }) {
  const search = useSearch({ from: "/machines/$machineId" });
  const navigate = useNavigate({ from: "/machines/$machineId" });
  const range: Range = isRange(search.range) ? search.range : "8h";
  const isFixed = search.from !== undefined && search.to !== undefined;
  const [now, setNow] = useState(seconds);
  useEffect(() => {
    if (isFixed) return;
    const step = followStep(RANGES[range]);
    return ticker.subscribe(() => setNow((before) => (seconds() - before >= step ? seconds() : before)));
  }, [isFixed, range]);
  const span: Span = useMemo(
    () => (isFixed ? { from: search.from ?? 0, to: search.to ?? 0 } : endingNow(range, now)),
    [isFixed, search.from, search.to, range, now],
  );
  const show = useCallback(
    (next: Span) => void navigate({ search: { range, from: Math.round(next.from), to: Math.round(next.to) }, replace: true }),
    [navigate, range],
  );
  const follow = useCallback((next: Range) => void navigate({ search: { range: next }, replace: true }), [navigate]);
  const wanted = useWanted(row);
  const [hidden, setHidden] = useState<ReadonlySet<string>>(new Set());
  const shown = wanted.filter((w) => !hidden.has(`${w.kind}/${w.name}`));
  const toggle = (key: string) =>
    setHidden((before) => {
      const after = new Set(before);
      if (!after.delete(key)) after.add(key);
      return after;
    });
  return (
    <section className="panel history">
      <div className="history-head">
        <h2>
          {s.machine.history} <small>{s.machine.alone}</small>
        </h2>
        <span className="segmented no-print" role="group" aria-label={s.machine.range}>
          {(Object.keys(RANGES) as Range[]).map((r) => (
            <button key={r} type="button" aria-pressed={!isFixed && r === range} onClick={() => follow(r)}>
              {s.machine.ranges[r]}
            </button>
          ))}
        </span>
        <span className="segmented no-print">
          <button type="button" onClick={() => show(moved(span, -0.5, seconds()))}>{s.machine.earlier}</button>
          <button type="button" onClick={() => show(zoomed(span, 0.5))}>{s.machine.zoomIn}</button>
          <button type="button" onClick={() => show(zoomed(span, 2))}>{s.machine.zoomOut}</button>
          <button type="button" disabled={!isFixed} onClick={() => show(moved(span, 0.5, seconds()))}>{s.machine.later}</button>
          <button type="button" disabled={!isFixed} onClick={() => follow(range)}>{s.machine.follow}</button>
        </span>
      </div>
      <fieldset className="choices no-print">
        <legend className="visually-hidden">{s.machine.signals}</legend>
        {wanted.map((w) => {
          const key = `${w.kind}/${w.name}`;
          return (
            <label key={key}>
              <input type="checkbox" checked={!hidden.has(key)} onChange={() => toggle(key)} /> {w.title}
            </label>
          );
        })}
      </fieldset>
      <Stack machineId={row.machine_id} wanted={shown} span={span} now={seconds} alarms={alarms} onSpan={show} onFollow={() => follow(range)} />
    </section>
  );
}

/** Risk first, then each signal with the features made of it. */
function useWanted(row: FleetMachine): readonly Wanted[] {
  const classes = useQuery(machineClasses()).data?.classes;
  return useMemo(() => {
    const found: Wanted[] = [{ kind: "risk", name: "risk", title: s.risk.label, limits: NONE }];
    const mine = classes?.find((c) => c.name === row.machine_class);
    for (const channel of mine?.channels ?? []) {
      found.push({ kind: "channel", name: channel.name, title: channel.title, limits: NONE });
      for (const feature of mine?.features.filter((f) => f.channel === channel.name && f.window_seconds !== null) ?? []) {
        const indicator = row.indicators.find((i) => i.feature === feature.name);
        const rule = mine?.thresholds.find((t) => t.feature === feature.name);
        found.push({
          kind: "feature",
          name: feature.name,
          title: feature.title,
          limits: {
            low: indicator?.low ?? null,
            high: indicator?.high ?? null,
            warning: rule?.warning ?? null,
            alarm: rule?.alarm ?? null,
          },
        });
      }
    }
    return found;
  }, [classes, row.machine_class, row.indicators]);
}
