/** A prediction: hatched and outlined, so that nobody takes it for a measurement. */
import type { Risk, Rung } from "../api/types";
import { s } from "../strings";
import { probability } from "../time/format";
import { Age } from "./Age";
import { RiskMark } from "./marks";

export interface Predicted {
  risk: Risk;
  probability: number | null;
  served_by: Rung | null;
  model_version: string | null;
  predicted_at: string | null;
}

export function PredictedRisk({ row, isLarge = false }: { row: Predicted; isLarge?: boolean }) {
  const p = row.probability;
  return (
    <span className={isLarge ? "predicted large" : "predicted"}>
      <span className="predicted-line">
        <RiskMark risk={row.risk} />
        <svg className="predicted-bar" viewBox="0 0 100 10" preserveAspectRatio="none" aria-hidden="true">
          <defs>
            <pattern id="hatch" width="4" height="4" patternUnits="userSpaceOnUse" patternTransform="rotate(45)">
              <rect width="4" height="4" className="hatch-ground" />
              <rect width="2" height="4" className="hatch-line" />
            </pattern>
          </defs>
          <rect x=".5" y=".5" width="99" height="9" className="predicted-frame" />
          {p !== null && <rect x=".5" y=".5" width={Math.max(0.5, p * 99)} height="9" className="predicted-fill" />}
        </svg>
        <b>{probability(p)}</b>
      </span>
      <Provenance row={row} />
    </span>
  );
}

/** Rung, model version and age: what every prediction carries. */
export function Provenance({ row }: { row: Pick<Predicted, "served_by" | "model_version" | "predicted_at"> }) {
  const rung = row.served_by;
  if (rung === null) return <small className="provenance">{s.rung.abstained}</small>;
  const who = rung === "production" && row.model_version ? s.rung.version(row.model_version) : s.rung[rung];
  return (
    <small className="provenance" data-rung={rung}>
      {who} · <Age at={row.predicted_at} />
    </small>
  );
}
