/** Level 1: the whole fleet on one screen; what needs attention on the left, every machine on the right. */
import { useQuery } from "@tanstack/react-query";
import { Link } from "@tanstack/react-router";
import { useDeferredValue, useMemo, useState } from "react";

import { alarms, fleet, sites } from "../../api/queries";
import type { Fleet, MachineRow } from "../../api/types";
import { summaries } from "../alarms/order";
import { MOST_MACHINES, useLive } from "../../live/live";
import { s } from "../../strings";
import { Loaded } from "../../ui/Loaded";
import { AbnormalTable } from "./AbnormalTable";
import { Tile } from "./Tile";
import { byArea, byRank, commonPrefix, isAbnormal, matches, type Place } from "./abnormal";

const MOST_ROWS = 60;

export function FleetPage() {
  const query = useQuery(fleet());
  return (
    <div className="page fleet">
      <Loaded query={query}>{(data) => <Overview data={data} />}</Loaded>
    </div>
  );
}

function Overview({ data }: { data: Fleet }) {
  const [filter, setFilter] = useState("");
  const wanted = useDeferredValue(filter);
  const standing = useQuery(alarms()).data?.alarms;
  const rows = useMemo(() => {
    const of = summaries(standing ?? []);
    return data.machines.map((m): MachineRow => ({ ...m, alarms: of(m.machine_id) }));
  }, [data.machines, standing]);
  const shown = useMemo(() => rows.filter((m) => matches(m, wanted)), [rows, wanted]);
  const abnormal = useMemo(() => shown.filter(isAbnormal).sort(byRank), [shown]);
  const isWhole = data.total <= MOST_MACHINES;
  const places = useMemo(() => (isWhole ? byArea(shown) : []), [isWhole, shown]);
  const prefix = useMemo(() => commonPrefix(data.machines.map((m) => m.machine_id)), [data.machines]);
  const live = useMemo(
    () => (isWhole ? data.machines : abnormal).slice(0, MOST_MACHINES).map((m) => m.machine_id).sort(),
    [isWhole, data.machines, abnormal],
  );
  useLive(live);
  return (
    <>
      <div className="page-head">
        <h1>{s.fleet.title}</h1>
        <FleetCounts data={data} />
        <label className="filter">
          <span className="visually-hidden">{s.fleet.filter}</span>
          <input type="search" placeholder={s.fleet.filterHint} value={filter} onChange={(e) => setFilter(e.target.value)} />
        </label>
      </div>
      {data.notice && <p className="note" role="status">{data.notice}</p>}
      {data.total === 0 ? (
        <p className="note">{s.fleet.empty}</p>
      ) : (
        <div className="fleet-columns">
          <section className="panel scroll" aria-labelledby="abnormal" tabIndex={0}>
            <h2 id="abnormal">
              {s.fleet.abnormal} <small>{s.fleet.of(abnormal.length, data.total)}</small>
            </h2>
            <AbnormalTable machines={abnormal.slice(0, MOST_ROWS)} />
            {abnormal.length > MOST_ROWS && <p className="quiet-text">{s.fleet.shown(MOST_ROWS, abnormal.length)}</p>}
          </section>
          <section className="fleet-areas" aria-label={s.fleet.areaSummary}>
            {isWhole ? (
              places.map((place) => <AreaTiles key={`${place.site}/${place.area}`} place={place} prefix={prefix} />)
            ) : (
              <AreaSummary total={data.total} />
            )}
            {shown.length === 0 && <p className="quiet-text">{s.fleet.noMatch}</p>}
            <p className="legend">{s.fleet.legend}</p>
          </section>
        </div>
      )}
    </>
  );
}

function FleetCounts({ data }: { data: Fleet }) {
  const levels = ["high", "elevated", "normal", "unknown"] as const;
  return (
    <p className="counts">
      <span>{s.fleet.machines(data.total)}</span>
      <span className="counts-risk">
        {s.risk.label}:{" "}
        {levels.map((level) => (
          <span key={level}>
            {s.risk[level]} <b>{data.counts[level] ?? 0}</b>
          </span>
        ))}
      </span>
    </p>
  );
}

function AreaTiles({ place, prefix }: { place: Place; prefix: number }) {
  const abnormal = place.machines.filter(isAbnormal).length;
  return (
    <section className="panel area-tiles">
      <h2>
        <AreaLink site={place.site} area={place.area} /> <small>{s.fleet.of(abnormal, place.machines.length)}</small>
      </h2>
      <div className="tiles">
        {place.machines.map((machine: MachineRow) => (
          <Tile key={machine.machine_id} machine={machine} shortId={machine.machine_id.slice(prefix)} />
        ))}
      </div>
    </section>
  );
}

function AreaLink({ site, area }: { site: string; area: string }) {
  return (
    <Link to="/areas" search={{ site, area }}>
      {site} · {area}
    </Link>
  );
}

function AreaSummary({ total }: { total: number }) {
  const query = useQuery(sites());
  return (
    <section className="panel">
      <h2>{s.fleet.areaSummary}</h2>
      <p className="quiet-text">{s.fleet.tilesHidden(total)}</p>
      <Loaded query={query}>
        {(data) => (
          <table className="rows">
            <thead>
              <tr>
                <th scope="col">{s.fleet.columns.area}</th>
                <th scope="col">{s.pages.fleet}</th>
                <th scope="col">{s.risk.high}</th>
                <th scope="col">{s.risk.elevated}</th>
                <th scope="col">{s.risk.unknown}</th>
              </tr>
            </thead>
            <tbody>
              {data.sites.flatMap((site) =>
                site.areas.map((row) => (
                  <tr key={`${site.site}/${row.area}`}>
                    <th scope="row">
                      <AreaLink site={site.site} area={row.area} />
                    </th>
                    <td>{s.fleet.machines(row.machines)}</td>
                    <td>{row.counts["high"] ?? 0}</td>
                    <td>{row.counts["elevated"] ?? 0}</td>
                    <td>{row.counts["unknown"] ?? 0}</td>
                  </tr>
                )),
              )}
            </tbody>
          </table>
        )}
      </Loaded>
    </section>
  );
}
