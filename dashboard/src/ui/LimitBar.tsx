/** A value as a bar with normal band, limits, unit and trend: what replaces a dial. */
import { useEffect, useRef } from "react";

import type { Indicator } from "../api/types";
import { store } from "../live/live";
import { s } from "../strings";
import { number, withUnit } from "../time/format";
import { Sparkline } from "./Sparkline";
import { scaleOf, standing } from "./scale";

export function describe(indicator: Indicator): string {
  const { title, unit, value, low, high, warning, alarm } = indicator;
  const normal = low === null || high === null ? "" : `, ${s.bar.normal(number(low), withUnit(high, unit))}`;
  const limits =
    (warning === null ? "" : `, ${s.bar.warning} ${number(warning)}`) +
    (alarm === null ? "" : `, ${s.bar.alarm} ${number(alarm)}`);
  return s.bar.text(title, value === null ? s.bar.noValue : withUnit(value, unit), normal, limits);
}

interface LimitBarProps {
  machineId: string;
  indicator: Indicator;
  past?: readonly (number | null)[] | undefined;
  /** In a table whose column says what it is: without title and trend. */
  isCompact?: boolean;
}

export function LimitBar({ machineId, indicator, past, isCompact = false }: LimitBarProps) {
  const scale = scaleOf(indicator);
  const pointer = useRef<SVGPathElement>(null);
  const text = useRef<HTMLSpanElement>(null);
  const root = useRef<HTMLDivElement>(null);
  const { feature, unit } = indicator;

  useEffect(() => {
    const show = (value: number | null) => {
      const where = standing(value, indicator);
      if (root.current) root.current.dataset["standing"] = where;
      if (text.current) text.current.textContent = number(value);
      if (pointer.current) {
        pointer.current.style.display = value === null ? "none" : "";
        pointer.current.style.transform = `translateX(${scale.at(value ?? scale.min) * 100}%)`;
      }
    };
    show(store.get(machineId)?.features.get(feature) ?? indicator.value);
    return store.subscribe(machineId, (m) => {
      const live = m.features.get(feature);
      if (live !== undefined) show(live);
    });
  });

  const percent = (v: number) => `${scale.at(v) * 100}%`;
  const { low, high, warning, alarm } = indicator;
  return (
    <div className={isCompact ? "limit-bar compact" : "limit-bar"} ref={root} data-standing={standing(indicator.value, indicator)}>
      {!isCompact && <span className="limit-bar-title">{indicator.title}</span>}
      <span className="limit-bar-value">
        <span ref={text}>{number(indicator.value)}</span> <span className="unit">{unit}</span>
      </span>
      <svg className="limit-bar-bar" role="img" aria-label={describe(indicator)}>
        <rect className="track" x="0" y="5" width="100%" height="10" />
        {low !== null && high !== null && (
          <rect className="band" x={percent(low)} y="5" width={`${(scale.at(high) - scale.at(low)) * 100}%`} height="10" />
        )}
        {warning !== null && <line className="limit" x1={percent(warning)} x2={percent(warning)} y1="3" y2="17" />}
        {alarm !== null && <line className="limit alarm-limit" x1={percent(alarm)} x2={percent(alarm)} y1="1" y2="19" />}
        <svg x="0" y="0" width="100%" height="20" overflow="visible">
          <path ref={pointer} className="pointer" d="M0 8l5 9h-10z" />
        </svg>
      </svg>
      {!isCompact && <Sparkline values={past ?? []} scale={scale} limits={indicator} />}
    </div>
  );
}
