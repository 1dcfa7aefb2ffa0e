/** Level 4: one prediction. What was said, why, from which data and which model; and its replay. */
import { useMutation, useQuery } from "@tanstack/react-query";
import { Link, useParams } from "@tanstack/react-router";

import { prediction, replayPrediction } from "../api/queries";
import type { Evidence } from "../api/types";
import { OUTCOMES } from "../api/vocabulary";
import { session } from "../auth/session";
import { useLive } from "../live/live";
import { s } from "../strings";
import { moment, number, probability, share, withUnit } from "../time/format";
import { Age } from "../ui/Age";
import { Loaded } from "../ui/Loaded";
import { OutcomeMenu } from "../ui/OutcomeMenu";
import { PredictedRisk } from "../ui/PredictedRisk";
import { WorkOrderButton } from "../ui/WorkOrderButton";
import { notifyFailure } from "../ui/notices";
import { scaleOf, standing } from "../ui/scale";

const NO_MACHINES: readonly string[] = [];

export function EvidencePage() {
  useLive(NO_MACHINES);
  const { predictionId } = useParams({ from: "/predictions/$predictionId" });
  const query = useQuery(prediction(predictionId));
  return (
    <div className="page evidence">
      <Loaded query={query} notFound={s.evidence.unknown}>
        {(data) => <Shown evidence={data} />}
      </Loaded>
    </div>
  );
}

function Shown({ evidence: e }: { evidence: Evidence }) {
  return (
    <>
      <p className="trail">
        <Link to="/">{s.pages.fleet}</Link> ›{" "}
        <Link to="/machines/$machineId" params={{ machineId: e.machine_id }}>
          {e.machine_id}
        </Link>
      </p>
      <div className="page-head">
        <h1>{s.evidence.title}</h1>
        <span className="digest">{e.prediction_id}</span>
      </div>
      <div className="machine-top">
        <section className="panel">
          <h2>{s.evidence.headline}</h2>
          <PredictedRisk
            isLarge
            row={{ risk: e.risk, probability: e.probability, served_by: e.served_by, model_version: e.model?.version ?? null, predicted_at: e.asked_at }}
          />
          <p>{e.explanation}</p>
          <dl className="facts">
            <dt>{s.machine.mode}</dt>
            <dd>
              {e.failure_mode?.title ?? s.none}
            </dd>
            <dt>{s.machine.action}</dt>
            <dd>
              {e.recommended_action ? (
                <>
                  {e.recommended_action.text} {e.recommended_action.procedure && <b>{s.machine.procedure(e.recommended_action.procedure)}</b>}
                </>
              ) : (
                s.machine.noAction
              )}
            </dd>
          </dl>
          <p className="actions no-print">
            <OutcomeMenu about={{ machineId: e.machine_id, predictionId: e.prediction_id }} />
            <WorkOrderButton
              about={{
                machineId: e.machine_id,
                alarmId: null,
                predictionId: e.prediction_id,
                cause: e.failure_mode?.title ?? s.fleet.riskText(s.risk[e.risk]),
                description: [e.explanation, e.recommended_action?.text].filter(Boolean).join("\n"),
                priority: e.risk === "high" ? 2 : 3,
                procedure: e.recommended_action?.procedure ?? null,
              }}
            />
          </p>
          <Reported evidence={e} />
        </section>
        <Provenance evidence={e} />
      </div>
      <Contributions evidence={e} />
      {e.signals.length > 0 && <Signals evidence={e} />}
    </>
  );
}

function Reported({ evidence }: { evidence: Evidence }) {
  return (
    <>
      <h3>{s.evidence.feedback}</h3>
      {evidence.feedback.length === 0 ? (
        <p className="quiet-text">{s.evidence.noFeedback}</p>
      ) : (
        <ul>
          {evidence.feedback.map((f) => (
            <li key={`${f.at}${f.outcome}`}>
              <b>{outcomeName(f.outcome)}</b> · {moment(f.at)} · {f.subject}
            </li>
          ))}
        </ul>
      )}
    </>
  );
}

function Provenance({ evidence: e }: { evidence: Evidence }) {
  const replay = useMutation({ mutationFn: () => replayPrediction(e.prediction_id), onError: notifyFailure });
  const may = session.atLeast("operator");
  return (
    <section className="panel">
      <h2>{s.evidence.provenance}</h2>
      <dl className="facts">
        <dt>{s.evidence.askedAt}</dt>
        <dd>
          {moment(e.asked_at)} · <Age at={e.asked_at} />
        </dd>
        <dt>{s.evidence.askedBy}</dt>
        <dd>{e.subject}</dd>
        <dt>{s.rung.label}</dt>
        <dd>{s.rung[e.served_by]}</dd>
        <dt>{s.evidence.model}</dt>
        <dd>{e.model ? `failure-${e.machine_class ?? ""} v${e.model.version}` : s.evidence.noModel}</dd>
        {e.model && (
          <>
            <dt>{s.evidence.digest}</dt>
            <dd className="digest">{e.model.digest}</dd>
          </>
        )}
        <dt>{s.evidence.featuresAt}</dt>
        <dd>
          {moment(e.features_at)} · {s.evidence.sources[e.source] ?? e.source}
        </dd>
        <dt>{s.evidence.featureVersion}</dt>
        <dd className="digest">{e.feature_set ?? "–"}</dd>
        <dt>{s.evidence.record}</dt>
        <dd>
          {e.chain ? (
            <>
              {e.is_record_intact ? s.evidence.intact : <b>{s.evidence.altered}</b>}
              <small className="digest"> {e.chain.instance} / {e.chain.number}</small>
            </>
          ) : (
            s.evidence.notYetLogged
          )}
        </dd>
        <dt>{s.evidence.latency}</dt>
        <dd>{withUnit(e.latency_ms, "ms")}</dd>
      </dl>
      <p className="actions no-print">
        {e.is_replayable ? (
          <button type="button" disabled={!may || replay.isPending} onClick={() => replay.mutate()}>
            {replay.isPending ? s.evidence.replaying : s.evidence.replay}
          </button>
        ) : (
          <span className="quiet-text">{e.detail ?? s.evidence.notReplayable}</span>
        )}
        {replay.data && (
          <span role="status">
            {replay.data.is_equal
              ? s.evidence.same(probability(replay.data.computed?.probability))
              : s.evidence.different(replay.data.detail ?? replay.data.differences.join("; "))}
          </span>
        )}
      </p>
    </section>
  );
}

function Contributions({ evidence }: { evidence: Evidence }) {
  const rows = evidence.inputs;
  const largest = Math.max(...rows.map((r) => Math.abs(r.contribution ?? 0)), 1e-9);
  return (
    <section className="panel">
      <h2>
        {s.evidence.contributions} <small>{s.evidence.contributionsHint}</small>
      </h2>
      <table className="rows contributions">
        <thead>
          <tr>
            <th scope="col">{s.evidence.input}</th>
            <th scope="col">{s.evidence.value}</th>
            <th scope="col">{s.evidence.normal}</th>
            <th scope="col">{s.evidence.effect}</th>
          </tr>
        </thead>
        <tbody>
          {rows.map((row) => {
            // This machine's own past says more than the class; a new machine has only the class.
            const [classLow, classHigh] = row.class_range ?? [null, null];
            const limits = { low: row.own_range?.low ?? classLow ?? null, high: row.own_range?.high ?? classHigh ?? null, warning: null, alarm: null };
            const where = standing(row.value, limits);
            return (
              <tr key={row.feature} data-standing={where}>
                <th scope="row">{row.title}</th>
                <td className="nowrap">
                  <b>{row.value === null ? s.bar.noValue : row.text}</b>
                </td>
                <td>
                  {limits.low !== null ? (
                    <span className="against">
                      <Against value={row.value} limits={limits} />
                      <span className="nowrap">
                        {number(limits.low)}–{withUnit(limits.high, row.unit === "1" ? "" : row.unit)}{" "}
                        <small>
                          {row.own_range ? "" : s.evidence.ofClass} {where === "inside" ? "" : <b>{s.bar[where]}</b>}
                        </small>
                      </span>
                    </span>
                  ) : (
                    "–"
                  )}
                </td>
                <td>
                  {row.contribution === null ? (
                    "–"
                  ) : (
                    <span className="effect">
                      <svg viewBox="-100 0 200 12" preserveAspectRatio="none" role="img" aria-label={`${number(row.contribution)} ${row.contribution >= 0 ? s.evidence.raises : s.evidence.lowers}`}>
                        <rect x={row.contribution < 0 ? (row.contribution / largest) * 100 : 0} width={(Math.abs(row.contribution) / largest) * 100} y="1" height="10" className={row.contribution >= 0 ? "raises" : "lowers"} />
                        <line x1="0" x2="0" y1="0" y2="12" />
                      </svg>
                      <span>{row.contribution > 0 ? "+" : ""}{number(row.contribution)}</span>
                    </span>
                  )}
                </td>
              </tr>
            );
          })}
        </tbody>
      </table>
    </section>
  );
}

/** What of each channel had arrived. */
function Signals({ evidence }: { evidence: Evidence }) {
  return (
    <section className="panel">
      <h2>{s.evidence.signals}</h2>
      <table className="rows">
        <thead>
          <tr>
            <th scope="col">{s.machine.signals}</th>
            <th scope="col">{s.quality.coverage}</th>
            <th scope="col">{s.quality.bad}</th>
          </tr>
        </thead>
        <tbody>
          {evidence.signals.map((signal) => (
            <tr key={signal.channel}>
              <th scope="row">{signal.title}</th>
              <td>{share(signal.coverage)}</td>
              <td>{share(signal.bad_share)}</td>
            </tr>
          ))}
        </tbody>
      </table>
    </section>
  );
}

const outcomeName = (outcome: string): string => s.outcome[OUTCOMES.find((o) => o === outcome) ?? "unknown"];

function Against({ value, limits }: { value: number | null; limits: { low: number | null; high: number | null; warning: number | null; alarm: number | null } }) {
  const scale = scaleOf(limits);
  const percent = (v: number) => `${scale.at(v) * 100}%`;
  return (
    <svg className="against-bar" aria-hidden="true">
      <rect className="track" x="0" y="3" width="100%" height="9" />
      {limits.low !== null && limits.high !== null && (
        <rect className="band" x={percent(limits.low)} width={`${(scale.at(limits.high) - scale.at(limits.low)) * 100}%`} y="3" height="9" />
      )}
      {value !== null && (
        <svg x={percent(value)} overflow="visible">
          <path className="pointer" d="M0 5l4.5 9h-9z" />
        </svg>
      )}
    </svg>
  );
}
