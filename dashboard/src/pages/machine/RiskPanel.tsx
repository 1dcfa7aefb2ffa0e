/** What is predicted, why, and the one thing to do. */
import { useMutation, useQueryClient } from "@tanstack/react-query";
import { Link } from "@tanstack/react-router";

import { askPrediction } from "../../api/queries";
import type { FleetMachine } from "../../api/types";
import { session } from "../../auth/session";
import { s } from "../../strings";
import { notifyFailure } from "../../ui/notices";
import { OutcomeMenu } from "../../ui/OutcomeMenu";
import { PredictedRisk } from "../../ui/PredictedRisk";
import { WorkOrderButton } from "../../ui/WorkOrderButton";
import { useActions } from "./actions";

export function RiskPanel({ row }: { row: FleetMachine }) {
  const client = useQueryClient();
  const ask = useMutation({
    mutationFn: () => askPrediction(row.machine_id),
    onSuccess: () => client.invalidateQueries({ queryKey: ["machine", row.machine_id] }),
    onError: notifyFailure,
  });
  const action = useActions(row);
  const isAbnormal = row.risk === "high" || row.risk === "elevated";
  return (
    <section className="panel risk-panel">
      <h2>{s.machine.risk}</h2>
      <PredictedRisk row={row} isLarge />
      <p>{row.explanation}</p>
      <dl className="facts">
        <dt>{s.machine.mode}</dt>
        <dd>{row.failure_mode?.title ?? s.none}</dd>
        <dt>{s.machine.action}</dt>
        <dd>
          {isAbnormal && action ? (
            <>
              {action.text} {action.procedure && <b>{s.machine.procedure(action.procedure)}</b>}
            </>
          ) : (
            s.machine.noAction
          )}
        </dd>
      </dl>
      <p className="actions no-print">
        {row.prediction_id && (
          <Link className="button" to="/predictions/$predictionId" params={{ predictionId: row.prediction_id }}>
            {s.machine.evidence}
          </Link>
        )}
        <OutcomeMenu about={{ machineId: row.machine_id, predictionId: row.prediction_id }} />
        <WorkOrderButton
          about={{
            machineId: row.machine_id,
            alarmId: null,
            predictionId: row.prediction_id,
            cause: row.failure_mode?.title ?? s.fleet.riskText(s.risk[row.risk]),
            description: [row.explanation, action?.text ?? ""].filter(Boolean).join("\n"),
            priority: row.risk === "high" ? 2 : 3,
            procedure: action?.procedure ?? null,
          }}
        />
        <button type="button" disabled={ask.isPending || !session.atLeast("operator")} onClick={() => ask.mutate()}>
          {s.machine.askNow}
        </button>
      </p>
    </section>
  );
}
