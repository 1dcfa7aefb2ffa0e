/** What was predicted for this machine, newest first. */
import { useQuery } from "@tanstack/react-query";
import { Link } from "@tanstack/react-router";

import { machinePredictions } from "../../api/queries";
import { OUTCOMES } from "../../api/vocabulary";
import { s } from "../../strings";
import { moment } from "../../time/format";
import { Loaded } from "../../ui/Loaded";
import { PredictedRisk } from "../../ui/PredictedRisk";

export function Predictions({ machineId }: { machineId: string }) {
  const query = useQuery(machinePredictions(machineId, 20));
  return (
    <section className="panel">
      <h2>{s.machine.predictions}</h2>
      <Loaded query={query}>
        {(data) =>
          data.predictions.length === 0 ? (
            <p className="quiet-text">{s.machine.noPredictions}</p>
          ) : (
            <table className="rows">
              <thead>
                <tr>
                  <th scope="col">{s.evidence.askedAt}</th>
                  <th scope="col">{s.risk.label}</th>
                  <th scope="col">{s.machine.mode}</th>
                  <th scope="col">{s.outcome.column}</th>
                </tr>
              </thead>
              <tbody>
                {data.predictions.map((p) => (
                  <tr key={p.prediction_id}>
                    <td className="nowrap">
                      <Link to="/predictions/$predictionId" params={{ predictionId: p.prediction_id }}>
                        {moment(p.asked_at)}
                      </Link>
                    </td>
                    <td>
                      <PredictedRisk row={{ ...p, predicted_at: p.asked_at }} />
                    </td>
                    <td>{p.failure_mode ?? s.none}</td>
                    <td>{OUTCOMES.filter((o) => o === p.outcome).map((o) => s.outcome[o])}</td>
                  </tr>
                ))}
              </tbody>
            </table>
          )
        }
      </Loaded>
    </section>
  );
}
