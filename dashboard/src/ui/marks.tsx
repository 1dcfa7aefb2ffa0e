/** Marks that carry meaning by shape, number and text; colour only repeats it. */
import type { DataStatus, Priority, Risk } from "../api/types";
import { s } from "../strings";

/** Square, triangle, inverted triangle, diamond: the shapes usual in high-performance displays. */
const SHAPES: Record<Priority, string> = {
  1: "M1.5 1.5h13v13h-13z",
  2: "M8 .8 15.6 15H.4z",
  3: "M8 15.2.4 1h15.2z",
  4: "M8 .4 15.6 8 8 15.6.4 8z",
};
const BASELINE: Record<Priority, number> = { 1: 12, 2: 13.2, 3: 9.6, 4: 11.6 };

export function PriorityMark({ priority, withText = false }: { priority: Priority; withText?: boolean }) {
  const name = s.priority[priority];
  return (
    <span className={`priority p${priority}`}>
      <svg viewBox="0 0 16 16" role="img" aria-label={s.priority.text(priority, name)}>
        <path d={SHAPES[priority]} />
        <text x="8" y={BASELINE[priority]} textAnchor="middle" aria-hidden="true">
          {priority}
        </text>
      </svg>
      {withText && <span aria-hidden="true">{name}</span>}
    </span>
  );
}

/** Predicted risk: bars like signal strength, outlined; never a saturated colour. */
export function RiskMark({ risk, withText = true }: { risk: Risk; withText?: boolean }) {
  const filled = { unknown: 0, normal: 1, elevated: 2, high: 3 }[risk];
  return (
    <span className={`risk risk-${risk}`}>
      <svg viewBox="0 0 14 12" aria-hidden="true">
        {[1, 2, 3].map((n) => (
          <rect key={n} x={(n - 1) * 5 + 0.5} y={12 - n * 4 + 0.5} width="3" height={n * 4 - 1} className={n <= filled ? "on" : "off"} />
        ))}
        {risk === "unknown" && <text x="7" y="10" textAnchor="middle">?</text>}
      </svg>
      {withText && <span>{s.risk[risk]}</span>}
    </span>
  );
}

const QUALITY_SIGN: Record<DataStatus, string> = {
  good: "",
  degraded: "◐",
  instrument_fault: "✕",
  no_data: "○",
};

export function DataMark({ status }: { status: DataStatus }) {
  return (
    <span className={`data data-${status}`}>
      <span aria-hidden="true">{QUALITY_SIGN[status]}</span> {s.quality[status]}
    </span>
  );
}
