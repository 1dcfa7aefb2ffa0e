/** How well the alarm system does its work: ISA-18.2 figures against their targets. */
import { useQuery } from "@tanstack/react-query";
import { Link } from "@tanstack/react-router";
import { useMemo, useState } from "react";

import { alarmKpi } from "../api/queries";
import type { AlarmKpi, Priority } from "../api/types";
import { useLive } from "../live/live";
import { s } from "../strings";
import { clock } from "../time/clock";
import { duration, moment, number, share } from "../time/format";
import { Loaded } from "../ui/Loaded";
import { PriorityMark } from "../ui/marks";

const NO_MACHINES: readonly string[] = [];
const HOURS = [8, 24, 168, 720] as const;
const PRIORITIES: readonly Priority[] = [1, 2, 3, 4];
/** Full minutes: the same address for everyone who looks within one. */
const MINUTE = 60;

export function KpiPage() {
  useLive(NO_MACHINES);
  const [hours, setHours] = useState<number>(24);
  const span = useMemo(() => {
    const to = Math.ceil(clock.now() / 1_000 / MINUTE) * MINUTE;
    return { from: to - hours * 3_600, to };
  }, [hours]);
  const query = useQuery(alarmKpi(span));
  return (
    <div className="page">
      <div className="page-head">
        <h1>{s.kpi.title}</h1>
        <span className="segmented" role="group" aria-label={s.machine.range}>
          {HOURS.map((h) => (
            <button key={h} type="button" aria-pressed={h === hours} onClick={() => setHours(h)}>
              {h < 48 ? s.kpi.hours(h) : s.kpi.days(h / 24)}
            </button>
          ))}
        </span>
        <p className="quiet-text">{s.kpi.intro}</p>
      </div>
      <Loaded query={query}>{(data) => <Figures kpi={data} />}</Loaded>
    </div>
  );
}

interface Figure {
  title: string;
  text: string;
  value: number;
  /** Beyond it the target is missed. */
  target: number;
  /** Right end of the bar. */
  most: number;
  hint: string;
}

function Figures({ kpi }: { kpi: AlarmKpi }) {
  const figures: Figure[] = [
    { title: s.kpi.rate, text: number(kpi.per_hour), value: kpi.per_hour, target: 6, most: 18, hint: s.kpi.rateTarget },
    { title: s.kpi.flood, text: share(kpi.flood_share), value: kpi.flood_share, target: 0.01, most: 0.05, hint: s.kpi.floodTarget },
    { title: s.kpi.top10, text: share(kpi.top_10_share), value: kpi.top_10_share, target: 0.05, most: 1, hint: s.kpi.top10Target },
    { title: s.kpi.stale, text: number(kpi.stale.length), value: kpi.stale.length, target: 4, most: 15, hint: s.kpi.staleTarget },
    { title: s.kpi.chatter, text: number(kpi.chattering.length), value: kpi.chattering.length, target: 0, most: 5, hint: s.kpi.chatterTarget },
  ];
  return (
    <>
      <section className="panel kpi-figures">
        {figures.map((f) => (
          <KpiBar key={f.title} figure={f} />
        ))}
        <dl className="facts">
          <dt>{s.kpi.standing}</dt>
          <dd>
            {kpi.standing} · {s.alarms.tabs.shelved} {kpi.shelved} · {s.alarms.tabs.suppressed} {kpi.suppressed} · {s.alarms.tabs.out_of_service} {kpi.out_of_service}
          </dd>
          <dt>{s.kpi.annunciated}</dt>
          <dd>
            {kpi.annunciated} · {s.kpi.peak} {kpi.peak_per_10_min}
          </dd>
          <dt>{s.kpi.acknowledged}</dt>
          <dd>
            {share(kpi.acknowledged_share)} · {s.kpi.median} {duration(kpi.median_seconds_to_acknowledge)}
          </dd>
          <dt>{s.kpi.byPriority}</dt>
          <dd>
            {PRIORITIES.map((p) => (
              <span key={p} className="kpi-priority">
                <PriorityMark priority={p} /> {share(kpi.priorities[String(p)] ?? 0)}
              </span>
            ))}
          </dd>
        </dl>
      </section>
      <div className="machine-top kpi-lists">
        <section className="panel">
          <h2>{s.kpi.frequent}</h2>
          {kpi.most_frequent.length === 0 ? (
            <p className="quiet-text">{s.kpi.nothing}</p>
          ) : (
            <List rows={kpi.most_frequent.map((r) => ({ ...r, figures: [number(r.count), share(r.share)] }))} heads={[s.kpi.columns.count, s.kpi.columns.share]} />
          )}
        </section>
        <section className="panel">
          <h2>{s.kpi.chatter}</h2>
          <List rows={kpi.chattering.map((r) => ({ ...r, figures: [number(r.bursts)] }))} heads={[s.kpi.columns.count]} />
          <h2>{s.kpi.stale}</h2>
          <List rows={kpi.stale.map((r) => ({ ...r, figures: [moment(r.raised_at)] }))} heads={[s.alarms.columns.raised]} />
        </section>
      </div>
    </>
  );
}

function KpiBar({ figure: f }: { figure: Figure }) {
  const at = (v: number) => `${Math.min(1, v / f.most) * 100}%`;
  const isWithin = f.value <= f.target;
  return (
    <div className="limit-bar kpi-bar" data-standing={isWithin ? "inside" : "beyondWarning"}>
      <span className="limit-bar-title">{f.title}</span>
      <span className="limit-bar-value">
        <span>{f.text}</span>
      </span>
      <svg className="limit-bar-bar" aria-hidden="true">
        <rect className="track" x="0" y="5" width="100%" height="10" />
        <rect className="band" x="0" y="5" width={at(f.target)} height="10" />
        <line className="limit" x1={at(f.target)} x2={at(f.target)} y1="2" y2="18" />
        <svg x={at(f.value)} overflow="visible">
          <path className="pointer" d="M0 8l5 9h-10z" />
        </svg>
      </svg>
      <small>
        {isWithin ? s.kpi.within : <b>{s.kpi.beyond}</b>} · {f.hint}
      </small>
    </div>
  );
}

function List({ rows, heads }: { rows: readonly { alarm_id: string; definition_id: string; machine_id: string; figures: string[] }[]; heads: readonly string[] }) {
  if (rows.length === 0) return <p className="quiet-text">{s.none}</p>;
  return (
    <table className="rows">
      <thead>
        <tr>
          <th scope="col">{s.kpi.columns.alarm}</th>
          <th scope="col">{s.kpi.columns.machine}</th>
          {heads.map((h) => (
            <th key={h} scope="col">{h}</th>
          ))}
        </tr>
      </thead>
      <tbody>
        {rows.map((row) => (
          <tr key={row.alarm_id}>
            <th scope="row">{row.definition_id}</th>
            <td>
              {row.machine_id ? (
                <Link to="/machines/$machineId" params={{ machineId: row.machine_id }}>
                  {row.machine_id}
                </Link>
              ) : (
                s.product
              )}
            </td>
            {row.figures.map((text, i) => (
              <td key={heads[i]}>{text}</td>
            ))}
          </tr>
        ))}
      </tbody>
    </table>
  );
}
