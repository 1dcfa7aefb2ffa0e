/** What the next shift must know; printable. */
import { useQuery } from "@tanstack/react-query";
import { Link } from "@tanstack/react-router";
import { useMemo, useState, type ReactNode } from "react";

import { handover } from "../api/queries";
import type { Alarm, Handover } from "../api/types";
import { session } from "../auth/session";
import { useLive } from "../live/live";
import { s } from "../strings";
import { clock } from "../time/clock";
import { moment } from "../time/format";
import { Age } from "../ui/Age";
import { Loaded } from "../ui/Loaded";
import { RiskMark } from "../ui/marks";
import { WorkOrderTable } from "./WorkOrdersPage";
import { AlarmTable } from "./alarms/AlarmTable";

const NO_MACHINES: readonly string[] = [];
const SHIFTS = [8, 12, 24] as const;
const MINUTE_MS = 60_000;

export function HandoverPage() {
  useLive(NO_MACHINES);
  const [hours, setHours] = useState<number>(8);
  const since = useMemo(
    () => new Date(Math.floor(clock.now() / MINUTE_MS) * MINUTE_MS - hours * 3_600_000).toISOString(),
    [hours],
  );
  const query = useQuery(handover(since));
  return (
    <div className="page handover">
      <div className="page-head">
        <h1>
          {s.handover.title} <small>{s.handover.since} {moment(since)}</small>
        </h1>
        <span className="segmented no-print" role="group" aria-label={s.handover.since}>
          {SHIFTS.map((h) => (
            <button key={h} type="button" aria-pressed={h === hours} onClick={() => setHours(h)}>
              {s.handover.shift(h)}
            </button>
          ))}
        </span>
        <span className="spacer" />
        <button type="button" className="no-print" onClick={() => window.print()}>{s.handover.print}</button>
      </div>
      <p className="print-only">{s.machine.printedAt(moment(clock.now()), session.identity()?.subject ?? "")}</p>
      <Loaded query={query}>{(data) => <Parts data={data} />}</Loaded>
    </div>
  );
}

function Parts({ data }: { data: Handover }) {
  return (
    <>
      {data.notices.map((notice) => (
        <p key={notice} className="note" role="status">
          {notice}
        </p>
      ))}
      <Part title={s.handover.newAlarms} count={data.new_alarms.length}><Alarms rows={data.new_alarms as readonly Alarm[]} /></Part>
      <Part title={s.handover.standing} count={data.standing_alarms.length}><Alarms rows={data.standing_alarms as readonly Alarm[]} /></Part>
      <Part title={s.handover.shelved} count={data.shelved.length}><Alarms rows={data.shelved as readonly Alarm[]} /></Part>
      <Part title={s.handover.outOfService} count={data.out_of_service.length}><Alarms rows={data.out_of_service as readonly Alarm[]} /></Part>
      <Part title={s.handover.advisories} count={data.advisories.length}><Alarms rows={data.advisories as readonly Alarm[]} /></Part>
      <Part title={s.handover.orders} count={data.work_orders.length}><WorkOrderTable orders={data.work_orders} /></Part>
      <Part title={s.handover.changes} count={data.model_changes.length}>
        <ul>
          {data.model_changes.map((change) => (
            <li key={`${change.decided_at}${change.version}${change.decision}`}>
              {moment(change.decided_at)} · {change.machine_class} v{change.version} · {s.handover.decided(change.decision.replaceAll("_", " "), change.decided_by)} · {change.reason}
            </li>
          ))}
        </ul>
      </Part>
      <Part title={s.handover.abnormal} count={data.abnormal_machines.length}>
        <ul className="abnormal-list">
          {data.abnormal_machines.map((m) => (
            <li key={m.machine_id}>
              <Link to="/machines/$machineId" params={{ machineId: m.machine_id }}>{m.machine_id}</Link> <RiskMark risk={m.risk} /> <Age at={m.since} />
            </li>
          ))}
        </ul>
      </Part>
    </>
  );
}

function Part({ title, count, children }: { title: string; count: number; children: ReactNode }) {
  return (
    <section className="panel">
      <h2>
        {title} <small>{count}</small>
      </h2>
      {count === 0 ? <p className="quiet-text">{s.handover.nothing}</p> : children}
    </section>
  );
}

const Alarms = ({ rows }: { rows: readonly Alarm[] }) => <div className="scroll" tabIndex={0}><AlarmTable alarms={rows} /></div>;
