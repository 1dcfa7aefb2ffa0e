/** One machine in the overview: id, alarm, predicted risk, four moving indicators, age of its data. */
import { Link } from "@tanstack/react-router";
import { memo, useEffect, useRef } from "react";

import type { Indicator, MachineRow } from "../../api/types";
import { store } from "../../live/live";
import { s } from "../../strings";
import { clock, ticker } from "../../time/clock";
import { age, ms, probability } from "../../time/format";
import { PriorityMark, RiskMark } from "../../ui/marks";
import { scaleOf, standing } from "../../ui/scale";
import { rank, what } from "./abnormal";

const INDICATORS = 4;
const STALE_MS = 600_000;

export const Tile = memo(function Tile({ machine, shortId }: { machine: MachineRow; shortId: string }) {
  const { machine_id, alarms, risk } = machine;
  const indicators = machine.indicators.slice(0, INDICATORS);
  const abnormal = rank(machine) > 0;
  const label = `${machine_id}: ${abnormal ? what(machine) : s.risk.normal}. ${s.risk.label} ${s.risk[risk]} ${probability(machine.probability)}. ${s.fleet.data(s.quality[machine.data_quality.status])}.`;
  return (
    <Link
      to="/machines/$machineId"
      params={{ machineId: machine_id }}
      className="tile"
      data-abnormal={abnormal}
      data-quality={machine.data_quality.status}
    >
      <span className="visually-hidden">{label}</span>
      <span className="tile-text" aria-hidden="true">
        <span className="tile-id">
          {alarms.top && <PriorityMark priority={alarms.top.priority} />}
          {shortId}
        </span>
        <span className="tile-risk" data-risk={risk}>
          {risk === "normal" ? null : <RiskMark risk={risk} withText={false} />}
          {probability(machine.probability)}
        </span>
        <TileAge machine={machine} />
      </span>
      <span className="tile-indicators" aria-hidden="true">
        {indicators.map((indicator) => (
          <MovingIndicator key={indicator.feature} machineId={machine_id} indicator={indicator} />
        ))}
      </span>
    </Link>
  );
});

function TileAge({ machine }: { machine: MachineRow }) {
  const ref = useRef<HTMLSpanElement>(null);
  const { machine_id, features_at } = machine;
  useEffect(() => {
    const show = () => {
      if (!ref.current) return;
      const live = store.get(machine_id)?.featuresAt;
      const at = Math.max(live ? live / 1_000 : 0, ms(features_at) ?? 0);
      const text = at ? age(new Date(at).toISOString(), clock.now()) : s.quality.no_data;
      if (ref.current.textContent !== text) ref.current.textContent = text;
      ref.current.classList.toggle("stale", clock.now() - at > STALE_MS);
    };
    show();
    return ticker.subscribe(show);
  }, [machine_id, features_at]);
  return <span className="tile-age" ref={ref} />;
}

/** A vertical band with a pointer. Live values move the pointer without rendering. */
function MovingIndicator({ machineId, indicator }: { machineId: string; indicator: Indicator }) {
  const pointer = useRef<HTMLElement>(null);
  const { feature, value } = indicator;
  useEffect(() => {
    const scale = scaleOf(indicator);
    const show = (v: number | null) => {
      const element = pointer.current;
      if (!element) return;
      const where = standing(v, indicator);
      if (element.dataset["standing"] !== where) element.dataset["standing"] = where;
      const y = `${Math.round((1 - scale.at(v ?? scale.min)) * 28)}px`;
      if (element.style.getPropertyValue("--y") !== y) element.style.setProperty("--y", y);
    };
    const live = store.get(machineId)?.features.get(feature);
    show(live ?? value);
    return store.subscribe(machineId, (m) => {
      const next = m.features.get(feature);
      if (next !== undefined) show(next);
    });
  }, [machineId, feature, value, indicator]);
  const scale = scaleOf(indicator);
  const low = indicator.low === null ? 1 / 3 : scale.at(indicator.low);
  const high = indicator.high === null ? 2 / 3 : scale.at(indicator.high);
  return (
    <span className="moving">
      <i
        className="moving-band"
        ref={(element) => {
          element?.style.setProperty("--top", `${Math.round((1 - high) * 30)}px`);
          element?.style.setProperty("--height", `${Math.max(3, Math.round((high - low) * 30))}px`);
        }}
      />
      <i className="moving-pointer" ref={pointer} />
    </span>
  );
}
