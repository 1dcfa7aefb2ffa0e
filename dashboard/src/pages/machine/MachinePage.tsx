/** Level 3: one machine. Fixed layout: prediction, present values, alarms, history, what was said. */
import { useQuery } from "@tanstack/react-query";
import { Link, useParams } from "@tanstack/react-router";
import { useMemo } from "react";

import { advisories, alarms, health, machine } from "../../api/queries";
import type { Alarm } from "../../api/types";
import { session } from "../../auth/session";
import { useLive } from "../../live/live";
import { s } from "../../strings";
import { clock } from "../../time/clock";
import { moment } from "../../time/format";
import { Age } from "../../ui/Age";
import { Loaded } from "../../ui/Loaded";
import { DataMark } from "../../ui/marks";
import { AlarmTable } from "../alarms/AlarmTable";
import { byUrgency } from "../alarms/order";
import { HistoryPanel } from "./HistoryPanel";
import { NowPanel } from "./NowPanel";
import { Predictions } from "./Predictions";
import { RiskPanel } from "./RiskPanel";

export function MachinePage() {
  const { machineId } = useParams({ from: "/machines/$machineId" });
  const query = useQuery(machine(machineId));
  const state = useQuery(health(machineId));
  const standing = useQuery(alarms()).data?.alarms;
  const planned = useQuery(advisories()).data?.alarms;
  const watched = useMemo(() => [machineId], [machineId]);
  useLive(watched);
  const mine = useMemo(
    () => [...(standing ?? []), ...(planned ?? [])].filter((a: Alarm) => a.machine_id === machineId).sort(byUrgency),
    [standing, planned, machineId],
  );
  return (
    <div className="page machine" key={machineId}>
      <Loaded query={query} notFound={s.machine.unknown(machineId)}>
        {(row) => (
          <>
            <p className="trail">
              <Link to="/">{s.pages.fleet}</Link> ›{" "}
              <Link to="/areas" search={{ site: row.site, area: row.area }}>
                {row.site} · {row.area}
              </Link>
            </p>
            <div className="page-head">
              <h1>
                {machineId} <small>{row.machine_class}</small>
              </h1>
              <p className="counts">
                <span>
                  {s.fleet.columns.owner}: {row.owner ?? s.fleet.unassigned}
                </span>
                <span>
                  {s.quality.label}: <DataMark status={row.data_quality.status} /> <Age at={row.features_at} />
                </span>
                <span>
                  {s.machine.health}: {row.health.score === null ? s.quality.no_data : Math.round(row.health.score)}
                </span>
                <span>
                  {s.machine.lastMaintenance}: <Age at={state.data?.last_maintenance_at} />
                </span>
              </p>
              <span className="spacer" />
              <button type="button" className="no-print" onClick={() => window.print()}>
                {s.machine.report}
              </button>
            </div>
            <p className="print-only">
              {s.machine.reportTitle} · {s.machine.printedAt(moment(clock.now()), session.identity()?.subject ?? "")}
            </p>
            <div className="machine-top">
              <RiskPanel row={row} />
              <NowPanel row={row} health={state.data} />
            </div>
            <section className="panel">
              <h2>{s.machine.openAlarms}</h2>
              {mine.length === 0 ? <p className="quiet-text">{s.machine.noAlarms}</p> : <AlarmTable alarms={mine} withMachine={false} />}
            </section>
            <HistoryPanel row={row} alarms={mine} />
            <Predictions machineId={machineId} />
          </>
        )}
      </Loaded>
    </div>
  );
}
