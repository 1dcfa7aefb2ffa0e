/** The state of the parts behind the console, and of the console itself. */
import { useQuery } from "@tanstack/react-query";
import { useEffect, useRef } from "react";

import { systemStatus } from "../api/queries";
import type { SystemStatus } from "../api/types";
import { connection, store, useLive } from "../live/live";
import { s } from "../strings";
import { clock, ticker } from "../time/clock";
import { duration, moment, number } from "../time/format";
import { Loaded } from "../ui/Loaded";

const NO_MACHINES: readonly string[] = [];

export function SystemPage() {
  useLive(NO_MACHINES);
  const query = useQuery(systemStatus());
  return (
    <div className="page">
      <div className="page-head">
        <h1>{s.system.title}</h1>
      </div>
      <Loaded query={query}>{(data) => <Parts status={data as SystemStatus} />}</Loaded>
    </div>
  );
}

const word = (status: string): string => ({ ok: s.system.ok, degraded: s.system.degraded, away: s.system.away })[status] ?? status;

function Parts({ status }: { status: SystemStatus }) {
  const c = s.system.columns;
  return (
    <div className="system-columns">
      <section className="panel">
        <h2>{s.system.dependencies}</h2>
        <dl className="facts">
          <dt>{s.system.status}</dt>
          <dd className={status.status === "ok" ? "" : "away"}>{word(status.status)}</dd>
          <dt>{s.system.version}</dt>
          <dd>{status.version}</dd>
          <dt>{s.system.uptime}</dt>
          <dd>{duration(status.uptime_seconds)}</dd>
        </dl>
        <table className="rows">
          <thead>
            <tr>
              <th scope="col">{c.part}</th>
              <th scope="col">{c.state}</th>
              <th scope="col">{c.detail}</th>
            </tr>
          </thead>
          <tbody>
            {Object.entries(status.dependencies).map(([name, part]) => (
              <tr key={name}>
                <th scope="row">{name.replaceAll("_", " ")}</th>
                <td className={part.status === "ok" ? "" : "away"}>{word(part.status)}</td>
                <td>
                  {part.detail}
                  {typeof part.waiting === "number" && typeof part.capacity === "number" ? s.system.waiting(part.waiting, part.capacity) : ""}
                </td>
              </tr>
            ))}
          </tbody>
        </table>
      </section>
      <section className="panel">
        <h2>{s.system.rungs}</h2>
        <table className="rows">
          <thead>
            <tr>
              <th scope="col">{c.class}</th>
              <th scope="col">{c.rung}</th>
              <th scope="col">{c.version}</th>
              <th scope="col">{c.detail}</th>
            </tr>
          </thead>
          <tbody>
            {status.models.map((m) => (
              <tr key={m.machine_class}>
                <th scope="row">{m.machine_class}</th>
                <td className={m.rung === "production" ? "" : "away"}>{s.rung[m.rung]}</td>
                <td>{m.version ?? s.none}</td>
                <td>{m.refused ? s.system.refused(m.refused.version ?? "", m.refused.reason) : ""}</td>
              </tr>
            ))}
          </tbody>
        </table>
      </section>
      <section className="panel">
        <h2>{s.system.freshness}</h2>
        <table className="rows">
          <thead>
            <tr>
              <th scope="col">{c.table}</th>
              <th scope="col">{c.age}</th>
              <th scope="col">{c.newest}</th>
            </tr>
          </thead>
          <tbody>
            {(status.freshness ?? []).map((f) => (
              <tr key={f.stage}>
                <th scope="row">{f.stage}</th>
                <td>{duration(f.age_seconds)}</td>
                <td>{moment(f.newest_at)}</td>
              </tr>
            ))}
          </tbody>
        </table>
        <h2>{s.system.lag}</h2>
        {!status.lag?.length ? (
          <p className="quiet-text">{s.system.noLag}</p>
        ) : (
          <table className="rows">
            <thead>
              <tr>
                <th scope="col">{c.app}</th>
                <th scope="col">{c.topic}</th>
                <th scope="col">{c.messages}</th>
              </tr>
            </thead>
            <tbody>
              {status.lag.map((l) => (
                <tr key={l.app + l.topic}>
                  <th scope="row">{l.app}</th>
                  <td>{l.topic}</td>
                  <td>{number(l.messages)}</td>
                </tr>
              ))}
            </tbody>
          </table>
        )}
      </section>
      <ThisConsole />
    </div>
  );
}

function ThisConsole() {
  const ref = useRef<HTMLDListElement>(null);
  useEffect(() => {
    const show = () => {
      const set = (name: string, text: string) => {
        const element = ref.current?.querySelector(`[data-name=${name}]`);
        if (element) element.textContent = text;
      };
      set("skew", clock.skew === null ? "–" : s.system.skewValue((clock.skew / 1_000).toFixed(1)));
      set("readings", number(store.readings));
      set("malformed", number(connection.malformed));
      set("status", s.live[connection.status]);
    };
    show();
    return ticker.subscribe(show);
  }, []);
  return (
    <section className="panel">
      <h2>{s.system.console}</h2>
      <dl className="facts" ref={ref}>
        <dt>{s.live.label}</dt>
        <dd data-name="status" />
        <dt>{s.system.skew}</dt>
        <dd data-name="skew" />
        <dt>{s.system.readings}</dt>
        <dd data-name="readings" />
        <dt>{s.system.malformed}</dt>
        <dd data-name="malformed" />
      </dl>
    </section>
  );
}
