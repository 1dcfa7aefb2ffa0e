/** All alarms: active ones first, then what was put aside, the journal and the master list. */
import { useQuery } from "@tanstack/react-query";
import { useNavigate, useSearch } from "@tanstack/react-router";
import { useRef, useState } from "react";

import { alarms } from "../../api/queries";
import type { Alarm, AlarmList } from "../../api/types";
import { useLive } from "../../live/live";
import { s } from "../../strings";
import { moment } from "../../time/format";
import { Loaded } from "../../ui/Loaded";
import { AlarmTable } from "./AlarmTable";
import { Journal } from "./Journal";
import { MasterList } from "./MasterList";
import { byUrgency, stands } from "./order";

const TABS = ["active", "shelved", "suppressed", "out_of_service", "journal", "master"] as const;
type Tab = (typeof TABS)[number];
const NO_MACHINES: readonly string[] = [];

export function AlarmsPage() {
  useLive(NO_MACHINES);
  const search = useSearch({ from: "/alarms" });
  const navigate = useNavigate();
  const tab = TABS.find((t) => t === search.list) ?? "active";
  const query = useQuery(alarms());
  const list = useRef<HTMLDivElement>(null);
  const choose = (next: Tab) => void navigate({ to: "/alarms", search: next === "active" ? {} : { list: next }, replace: true });
  const move = (event: React.KeyboardEvent) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step) return;
    const next = TABS[(TABS.indexOf(tab) + step + TABS.length) % TABS.length] ?? "active";
    choose(next);
    list.current?.querySelector<HTMLElement>(`#tab-${next}`)?.focus();
  };
  return (
    <div className="page">
      <div className="page-head">
        <h1>{s.alarms.title}</h1>
        <div role="tablist" aria-label={s.alarms.tabsLabel} ref={list} onKeyDown={move}>
          {TABS.map((t) => (
            <button key={t} type="button" role="tab" id={`tab-${t}`} aria-selected={t === tab} aria-controls="tab-panel" tabIndex={t === tab ? 0 : -1} onClick={() => choose(t)}>
              {s.alarms.tabs[t]} {query.data && <Count list={query.data} tab={t} />}
            </button>
          ))}
        </div>
      </div>
      <div role="tabpanel" id="tab-panel" aria-labelledby={`tab-${tab}`}>
        {tab === "journal" ? (
          <Journal />
        ) : tab === "master" ? (
          <MasterList />
        ) : (
          <Loaded query={query}>{(data) => (tab === "active" ? <Active data={data} /> : <Aside alarms={data.alarms.filter((a) => a.state === tab)} tab={tab} />)}</Loaded>
        )}
      </div>
    </div>
  );
}

function Count({ list, tab }: { list: AlarmList; tab: Tab }) {
  if (tab === "journal" || tab === "master") return null;
  return <b>{list.alarms.filter((a) => (tab === "active" ? stands(a) : a.state === tab)).length}</b>;
}

function Aside({ alarms: rows, tab }: { alarms: readonly Alarm[]; tab: "shelved" | "suppressed" | "out_of_service" }) {
  if (rows.length === 0) return <p className="quiet-text">{s.alarms.empty[tab]}</p>;
  return <div className="panel scroll" tabIndex={0}><AlarmTable alarms={[...rows].sort(byUrgency)} /></div>;
}

function Active({ data }: { data: AlarmList }) {
  const [isGrouped, setGrouped] = useState<boolean | null>(null);
  const rows = data.alarms.filter(stands).sort(byUrgency);
  const grouped = isGrouped ?? data.flood.active;
  const firstOut = new Set(data.flood.groups.map((g) => g.first_out));
  return (
    <>
      {!data.engine.is_active && <p className="note" role="alert">{s.alarms.engineAway}</p>}
      {data.flood.active && (
        <p className="note flood" role="status">
          <strong>{s.alarms.flood}</strong> {s.alarms.floodSince(moment(data.flood.since))} · {s.alarms.count(data.flood.raised_last_10_min)} / 10{" "}
          {s.units.minute}
        </p>
      )}
      {rows.length === 0 ? (
        <p className="quiet-text">{s.alarms.empty.active}</p>
      ) : (
        <>
          <label className="group-by">
            <input type="checkbox" checked={grouped} onChange={(e) => setGrouped(e.target.checked)} /> {s.alarms.groupBy}
          </label>
          {grouped ? <Groups data={data} rows={rows} /> : <div className="panel scroll" tabIndex={0}><AlarmTable alarms={rows} firstOut={firstOut} /></div>}
        </>
      )}
    </>
  );
}

function Groups({ data, rows }: { data: AlarmList; rows: readonly Alarm[] }) {
  const byId = new Map(rows.map((a) => [a.alarm_id, a]));
  const grouped = data.flood.groups.map((group) => ({
    group,
    members: group.alarm_ids.flatMap((id) => byId.get(id) ?? []),
  }));
  const inGroups = new Set(grouped.flatMap((g) => g.members.map((a) => a.alarm_id)));
  const rest = rows.filter((a) => !inGroups.has(a.alarm_id));
  return (
    <>
      {grouped
        .filter((g) => g.members.length > 0)
        .map(({ group, members }) => {
          const first = byId.get(group.first_out) ?? members[0];
          return (
            <details key={`${group.site}/${group.area}/${group.cause}`} className="panel flood-group" open={members.length <= 3}>
              <summary>
                <b>{first?.title ?? group.cause}</b> {s.alarms.floodText(group.count, first?.machine_id ?? "")} · {group.site} · {group.area}
              </summary>
              <AlarmTable alarms={members} firstOut={new Set([group.first_out])} />
            </details>
          );
        })}
      {rest.length > 0 && <div className="panel scroll" tabIndex={0}><AlarmTable alarms={rest} /></div>}
    </>
  );
}
