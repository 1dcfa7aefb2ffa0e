/** Alarms as rows: what, how urgent, since when, whose, what to do, how much time is left. */
import { Link } from "@tanstack/react-router";
import { useEffect, useRef } from "react";

import type { Alarm } from "../../api/types";
import { s } from "../../strings";
import { clock, ticker } from "../../time/clock";
import { duration, moment, withUnit } from "../../time/format";
import { Age } from "../../ui/Age";
import { PriorityMark } from "../../ui/marks";
import { AlarmActions } from "./AlarmActions";
import { needsAcknowledging, secondsLeft } from "./order";

export function AlarmTable({ alarms, firstOut, withMachine = true }: { alarms: readonly Alarm[]; firstOut?: ReadonlySet<string>; withMachine?: boolean }) {
  const c = s.alarms.columns;
  return (
    <table className="rows alarms">
      <thead>
        <tr>
          <th scope="col">{c.priority}</th>
          <th scope="col">{c.alarm}</th>
          {withMachine && <th scope="col">{c.machine}</th>}
          <th scope="col">{c.value}</th>
          <th scope="col">{c.raised}</th>
          <th scope="col">{c.response}</th>
          <th scope="col">{c.actions}</th>
        </tr>
      </thead>
      <tbody>
        {alarms.map((alarm) => (
          <tr key={alarm.alarm_id} data-alarm={alarm.alarm_id} data-state={alarm.state} data-waiting={needsAcknowledging(alarm)}>
            <td>
              <PriorityMark priority={alarm.priority} withText />
              <StateText alarm={alarm} />
            </td>
            <th scope="row">
              {alarm.title}
              {(firstOut?.has(alarm.alarm_id) ?? false) && <span className="first-out">{s.alarms.first}</span>}
              <small>{alarm.detail || alarm.cause}</small>
              {alarm.outcome && (
                <small>
                  {s.outcome.column}: <b>{s.outcome[alarm.outcome]}</b>
                </small>
              )}
            </th>
            {withMachine && (
              <td>
                {alarm.machine_id ? (
                  <Link to="/machines/$machineId" params={{ machineId: alarm.machine_id }}>
                    {alarm.machine_id}
                  </Link>
                ) : (
                  s.product
                )}
                <small className="under">
                  {alarm.area} · {alarm.owner}
                </small>
              </td>
            )}
            <td className="nowrap">
              {alarm.value === null ? (
                "–"
              ) : (
                <>
                  <b>{withUnit(alarm.value, unit(alarm))}</b>
                  <small className="under">{withUnit(alarm.setpoint, unit(alarm))}</small>
                </>
              )}
            </td>
            <td className="nowrap">
              <Age at={alarm.raised_at} />
              <TimeLeft alarm={alarm} />
            </td>
            <td className="response">
              {alarm.response}
              <small className="under">{alarm.procedure ? s.machine.procedure(alarm.procedure) : s.machine.noAction}</small>
            </td>
            <td>
              <AlarmActions alarm={alarm} />
            </td>
          </tr>
        ))}
      </tbody>
    </table>
  );
}

const unit = (alarm: Alarm): string => (alarm.unit === "1" ? "" : alarm.unit);

function StateText({ alarm }: { alarm: Alarm }) {
  let more: string | null = null;
  if (alarm.state === "acknowledged" && alarm.acknowledged_by) more = s.alarms.acknowledged(alarm.acknowledged_by, moment(alarm.acknowledged_at));
  if (alarm.state === "shelved") more = `${moment(alarm.shelved_until)} · ${alarm.shelved_by ?? ""}: ${alarm.shelve_reason ?? ""}`;
  if (alarm.state === "suppressed") more = alarm.suppressed_by;
  if (alarm.state === "out_of_service") more = `${alarm.out_of_service_by ?? ""}: ${alarm.out_of_service_reason ?? ""}`;
  return (
    <small className="state">
      {s.state[alarm.state]}
      {more && <span> · {more}</span>}
    </small>
  );
}

/** Time to respond that is left; only while nobody has answered. */
function TimeLeft({ alarm }: { alarm: Alarm }) {
  const ref = useRef<HTMLElement>(null);
  useEffect(() => {
    const show = () => {
      const left = needsAcknowledging(alarm) ? secondsLeft(alarm, clock.now()) : null;
      const element = ref.current;
      if (!element) return;
      const text = left === null ? "" : left >= 0 ? s.alarms.left(duration(left)) : s.alarms.late(duration(-left));
      if (element.textContent !== text) element.textContent = text;
      element.classList.toggle("late", left !== null && left < 0);
    };
    show();
    return ticker.subscribe(show);
  }, [alarm]);
  return <small className="under" ref={ref} />;
}
