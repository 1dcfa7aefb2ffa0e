/** Which model answers, which one is tried beside it, what was decided, and whether the data moved. */
import { useQuery } from "@tanstack/react-query";
import { useState } from "react";

import { drift, driftReport, models } from "../api/queries";
import type { ClassModels, ModelVersion } from "../api/types";
import { useLive } from "../live/live";
import { s } from "../strings";
import { moment, number, share } from "../time/format";
import { Age } from "../ui/Age";
import { Loaded, ProblemNote } from "../ui/Loaded";

const NO_MACHINES: readonly string[] = [];

export function ModelsPage() {
  useLive(NO_MACHINES);
  const query = useQuery(models());
  return (
    <div className="page models">
      <div className="page-head">
        <h1>{s.models.title}</h1>
      </div>
      <Loaded query={query}>
        {(data) => data.models.map((m) => <OneClass key={m.machine_class} of={m} />)}
      </Loaded>
    </div>
  );
}

function OneClass({ of: m }: { of: ClassModels }) {
  return (
    <section className="model-class">
      <h2>
        {m.title} <small>{m.machine_class} · {s.rung.label} {s.rung[m.rung]}</small>
      </h2>
      <div className="model-columns">
        <section className="panel">
          <h3>{s.models.production}</h3>
          {m.production ? <Version of={m.production} /> : <p>{s.models.noModel}</p>}
        </section>
        <section className="panel">
          <h3>{s.models.shadow}</h3>
          {m.shadow ? <Version of={m.shadow} /> : <p className="quiet-text">{s.models.noShadow}</p>}
          {m.shadow && <Comparison of={m} />}
        </section>
      </div>
      <section className="panel">
        <h3>{s.models.history}</h3>
        {m.history.length === 0 ? (
          <p className="quiet-text">{s.models.noHistory}</p>
        ) : (
          <div className="scroll" tabIndex={0}>
            <table className="rows">
              <thead>
                <tr>
                  <th scope="col">{s.models.columns.at}</th>
                  <th scope="col">{s.models.columns.version}</th>
                  <th scope="col">{s.models.columns.decision}</th>
                  <th scope="col">{s.models.columns.who}</th>
                  <th scope="col">{s.models.columns.reason}</th>
                </tr>
              </thead>
              <tbody>
                {m.history.map((h) => (
                  <tr key={`${h.decided_at}${h.version}${h.decision}`}>
                    <td className="nowrap">{moment(h.decided_at)}</td>
                    <td>{h.version}</td>
                    <td>{h.decision.replaceAll("_", " ")}</td>
                    <td>{h.decided_by}</td>
                    <td>{h.reason}</td>
                  </tr>
                ))}
              </tbody>
            </table>
          </div>
        )}
      </section>
      <Drift machineClass={m.machine_class} />
    </section>
  );
}

function Version({ of: v }: { of: ModelVersion }) {
  return (
    <dl className="facts">
      <dt>{s.models.version}</dt>
      <dd>{v.version}</dd>
      <dt>{s.evidence.digest}</dt>
      <dd className="digest">{v.digest ?? "–"}</dd>
      <dt>{s.models.trained}</dt>
      <dd>{moment(v.trained_at)}</dd>
      {v.promoted_at && (
        <>
          <dt>{s.models.promoted}</dt>
          <dd>{moment(v.promoted_at)} · <Age at={v.promoted_at} /></dd>
        </>
      )}
      <dt>{s.models.metrics}</dt>
      <dd>
        {Object.entries(v.metrics)
          .slice(0, 8)
          .map(([name, value]) => `${name.replaceAll("_", " ")} ${number(value)}`)
          .join(" · ") || s.none}
      </dd>
    </dl>
  );
}

function Comparison({ of: m }: { of: ClassModels }) {
  const c = m.shadow_comparison;
  if (!c || c.pairs === 0) return <p className="quiet-text">{s.models.noComparison}</p>;
  return (
    <>
      <h3>{s.models.comparison}</h3>
      <dl className="facts">
        <dt>{s.models.n}</dt>
        <dd>{c.pairs.toLocaleString("en")}</dd>
        <dt>{s.models.agreement}</dt>
        <dd>{share(c.agreement)}</dd>
        <dt>{s.models.difference}</dt>
        <dd>{number(c.mean_difference)}</dd>
        <dt>{s.models.correlation}</dt>
        <dd>{number(c.correlation)}</dd>
      </dl>
    </>
  );
}

function Drift({ machineClass }: { machineClass: string }) {
  const query = useQuery(drift(machineClass));
  const [isShown, setShown] = useState(false);
  const d = s.models.driftColumns;
  return (
    <section className="panel">
      <h3>{s.models.drift}</h3>
      <Loaded query={query} notFound={s.models.noDrift}>
        {(data) =>
          data.checked_at === null ? (
            <p className="quiet-text">{s.models.noDrift}</p>
          ) : (
            <>
              <p>
                <b>{data.is_drifting ? s.models.isDrifting : s.models.isNot}</b> · {s.models.measured} {moment(data.checked_at)}
              </p>
              <div className="scroll" tabIndex={0}>
                <table className="rows">
                  <thead>
                    <tr>
                      <th scope="col">{d.feature}</th>
                      <th scope="col">{d.state}</th>
                      <th scope="col">{d.distance}</th>
                      <th scope="col">{d.threshold}</th>
                      <th scope="col">{d.machines}</th>
                    </tr>
                  </thead>
                  <tbody>
                    {data.features.map((f) => (
                      <tr key={`${f.kind}/${f.feature}`}>
                        <th scope="row">
                          {f.feature} <small>{f.kind}</small>
                        </th>
                        <td>{f.drifted ? <b>{f.verdict}</b> : f.verdict}</td>
                        <td>{number(f.value)}</td>
                        <td>{number(f.threshold)}</td>
                        <td>{f.machines.join(", ")}</td>
                      </tr>
                    ))}
                  </tbody>
                </table>
              </div>
              {data.has_report && (
                <p>
                  <button type="button" aria-expanded={isShown} onClick={() => setShown(!isShown)}>{s.models.showReport}</button>
                </p>
              )}
              {isShown && <Report machineClass={machineClass} />}
            </>
          )
        }
      </Loaded>
    </section>
  );
}

/** The report is a page of another tool: it runs in a frame that may do nothing here. */
function Report({ machineClass }: { machineClass: string }) {
  const ticket = useQuery(driftReport(machineClass));
  if (ticket.error) return <ProblemNote error={ticket.error} />;
  if (!ticket.data) return <p role="status">{s.loading}</p>;
  return <iframe className="report" title={s.models.report} src={ticket.data.url} sandbox="allow-scripts" />;
}
