/** What happened to the machine, under the curves and on their time axis. */
import type { Span } from "../api/queries";
import { s } from "../strings";
import { moment } from "../time/format";

export interface Happening {
  key: string;
  /** s since 1970. */
  at: number;
  until: number | null;
  kind: string;
  title: string;
}

/** Letter in the mark: kinds differ in shape and text, not in colour. */
const SIGNS: Record<string, string> = {
  maintenance: "M",
  failure: "F",
  error: "E",
  counter_reset: "R",
  alarm: "A",
  advisory: "P",
  feedback: "O",
};

export function Lane({ happenings, span }: { happenings: readonly Happening[]; span: Span }) {
  const length = span.to - span.from;
  const at = (t: number) => `${Math.min(100, Math.max(0, ((t - span.from) / length) * 100))}%`;
  const shown = happenings.filter((h) => (h.until ?? h.at) >= span.from && h.at <= span.to);
  return (
    <div className="lane">
      <span className="lane-title">{s.machine.events}</span>
      <svg className="lane-plot" role="img" aria-label={`${s.machine.events}: ${shown.map((h) => `${moment(h.at * 1_000)} ${s.machine.eventTypes[h.kind] ?? h.kind} ${h.title}`).join("; ") || s.none}`}>
        {shown.map((h) => (
          <g key={h.key} className={`happening ${h.kind}`}>
            <title>{`${moment(h.at * 1_000)} ${s.machine.eventTypes[h.kind] ?? h.kind}: ${h.title}`}</title>
            {h.until !== null && <rect x={at(h.at)} width={`${Math.max(0, ((Math.min(h.until, span.to) - Math.max(h.at, span.from)) / length) * 100)}%`} y="9" height="6" className="happening-length" />}
            <svg x={at(h.at)} y="3" overflow="visible">
              <rect x="-8" y="0" width="16" height="17" rx={h.kind === "alarm" ? 0 : 8} className="happening-mark" />
              <text x="0" y="12.5" textAnchor="middle">
                {SIGNS[h.kind] ?? "•"}
              </text>
            </svg>
          </g>
        ))}
      </svg>
    </div>
  );
}
