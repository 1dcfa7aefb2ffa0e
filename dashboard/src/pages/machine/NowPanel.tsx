/** Present values: features against their normal, and each sensor's newest reading with quality and age. */
import { useQueries } from "@tanstack/react-query";
import { useEffect, useRef, useState } from "react";

import { history } from "../../api/queries";
import type { FleetMachine, Health } from "../../api/types";
import { store } from "../../live/live";
import { s } from "../../strings";
import { endingNow } from "../../charts/span";
import { clock, ticker } from "../../time/clock";
import { duration, number } from "../../time/format";
import { LimitBar } from "../../ui/LimitBar";

/** Points of the trend beside a bar: eight hours in ten-minute steps. */
const TREND_POINTS = 48;

export function NowPanel({ row, health }: { row: FleetMachine; health: Health | undefined }) {
  const [span] = useState(() => endingNow("8h", clock.now() / 1_000));
  const indicators = row.indicators;
  const past = useQueries({
    queries: indicators.map((i) => history(row.machine_id, { kind: "feature", name: i.feature }, span, TREND_POINTS)),
  });
  return (
    <section className="panel now-panel">
      <h2>{s.machine.now}</h2>
      {indicators.map((indicator, i) => (
        <LimitBar key={indicator.feature} machineId={row.machine_id} indicator={indicator} past={past[i]?.data?.mean} />
      ))}
      <h3>{s.machine.sensors}</h3>
      <ul className="sensors">
        {(health?.sensors ?? []).map((sensor) => (
          <Sensor key={sensor.channel} machineId={row.machine_id} sensor={sensor} />
        ))}
      </ul>
    </section>
  );
}

function Sensor({ machineId, sensor }: { machineId: string; sensor: Health["sensors"][number] }) {
  const value = useRef<HTMLElement>(null);
  const about = useRef<HTMLElement>(null);
  const { channel, status, unit } = sensor;
  useEffect(() => {
    const show = () => {
      const live = store.get(machineId)?.channels.get(channel);
      if (value.current) value.current.textContent = live ? number(live.value) : "–";
      if (!about.current) return;
      const quality = live ? ([s.quality.good, s.quality.uncertain, s.quality.bad][live.quality] ?? s.quality.bad) : status === "ok" ? s.machine.awaited : s.quality.no_data;
      about.current.textContent = live ? `${quality} · ${duration((clock.now() - live.ts / 1_000) / 1_000)}` : quality;
    };
    show();
    const stops = [ticker.subscribe(show), store.subscribe(machineId, show)];
    return () => stops.forEach((stop) => stop());
  }, [machineId, channel, status]);
  return (
    <li>
      <span>{sensor.title}</span>
      <span>
        <b ref={value}>–</b> <span className="unit">{unit === "1" ? "" : unit}</span>
      </span>
      <small ref={about} />
    </li>
  );
}
