/** Level 2: one area of one site, each machine with its present values against their normal. */
import { useQuery } from "@tanstack/react-query";
import { Link, useSearch } from "@tanstack/react-router";
import { useMemo } from "react";

import { alarms, fleet } from "../api/queries";
import type { Fleet, MachineRow } from "../api/types";
import { MOST_MACHINES, useLive } from "../live/live";
import { s } from "../strings";
import { Age } from "../ui/Age";
import { LimitBar } from "../ui/LimitBar";
import { Loaded } from "../ui/Loaded";
import { PredictedRisk } from "../ui/PredictedRisk";
import { DataMark, PriorityMark } from "../ui/marks";
import { summaries } from "./alarms/order";
import { byRank, isAbnormal, what } from "./fleet/abnormal";

export function AreaPage() {
  const { site, area } = useSearch({ from: "/areas" });
  const query = useQuery(fleet({ site, area }));
  return (
    <div className="page area">
      <p className="trail">
        <Link to="/">{s.pages.fleet}</Link> › {site} · {area}
      </p>
      <Loaded query={query}>{(data) => <Machines data={data} area={area} />}</Loaded>
    </div>
  );
}

function Machines({ data, area }: { data: Fleet; area: string }) {
  const standing = useQuery(alarms()).data?.alarms;
  const rows = useMemo(() => {
    const of = summaries(standing ?? []);
    return data.machines.map((m): MachineRow => ({ ...m, alarms: of(m.machine_id) })).sort(byRank);
  }, [data.machines, standing]);
  const ids = useMemo(() => data.machines.map((m) => m.machine_id).sort().slice(0, MOST_MACHINES), [data.machines]);
  useLive(ids);
  const columns = rows[0]?.indicators ?? [];
  const abnormal = rows.filter(isAbnormal).length;
  return (
    <>
      <div className="page-head">
        <h1>
          {s.pages.area} {area} <small>{s.fleet.of(abnormal, data.total)}</small>
        </h1>
      </div>
      {rows.length === 0 ? (
        <p className="note">{s.fleet.empty}</p>
      ) : (
        <div className="panel scroll" tabIndex={0}>
          <table className="rows area-table">
            <thead>
              <tr>
                <th scope="col">{s.fleet.columns.machine}</th>
                <th scope="col">{s.fleet.columns.what}</th>
                <th scope="col">{s.fleet.columns.risk}</th>
                {columns.map((c) => (
                  <th key={c.feature} scope="col">
                    {c.title}
                  </th>
                ))}
                <th scope="col">{s.fleet.columns.data}</th>
              </tr>
            </thead>
            <tbody>
              {rows.map((row) => (
                <tr key={row.machine_id} data-abnormal={isAbnormal(row)}>
                  <th scope="row">
                    <Link to="/machines/$machineId" params={{ machineId: row.machine_id }}>
                      {row.machine_id}
                    </Link>
                    <small>{row.owner ?? s.fleet.unassigned}</small>
                  </th>
                  <td>
                    {row.alarms.top && <PriorityMark priority={row.alarms.top.priority} />} {what(row) || s.risk.normal}
                  </td>
                  <td>
                    <PredictedRisk row={row} />
                  </td>
                  {row.indicators.map((indicator) => (
                    <td key={indicator.feature}>
                      <LimitBar machineId={row.machine_id} indicator={indicator} isCompact />
                    </td>
                  ))}
                  <td>
                    <DataMark status={row.data_quality.status} />
                    <small className="under">
                      <Age at={row.features_at} />
                    </small>
                  </td>
                </tr>
              ))}
            </tbody>
          </table>
        </div>
      )}
    </>
  );
}
