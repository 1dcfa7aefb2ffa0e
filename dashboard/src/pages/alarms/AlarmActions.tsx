/** What a person can do with one alarm. There is no blanket acknowledge. */
import { useMutation } from "@tanstack/react-query";
import { Link } from "@tanstack/react-router";
import { useState } from "react";

import { act, type AlarmAction } from "../../api/queries";
import type { Alarm } from "../../api/types";
import { session } from "../../auth/session";
import { s } from "../../strings";
import { withUnit } from "../../time/format";
import { Menu } from "../../ui/Menu";
import { OutcomeMenu } from "../../ui/OutcomeMenu";
import { WorkOrderButton } from "../../ui/WorkOrderButton";
import { notifyFailure } from "../../ui/notices";
import { ReasonDialog } from "./ReasonDialog";
import { needsAcknowledging, stands } from "./order";
import { refreshAfterGap } from "../../api/queries";

export function useAct(alarm: Alarm) {
  return useMutation({
    mutationFn: (action: AlarmAction) => act(alarm, action),
    onError: (error) => {
      notifyFailure(error);
      refreshAfterGap();
    },
  });
}

export function AlarmActions({ alarm }: { alarm: Alarm }) {
  const [asking, setAsking] = useState<"shelve" | "out-of-service" | null>(null);
  const doIt = useAct(alarm);
  const may = session.atLeast("operator");
  const common = { disabled: !may || doIt.isPending, title: may ? undefined : s.alarms.needsRole("operator") };
  return (
    <span className="alarm-actions">
      {needsAcknowledging(alarm) && (
        <button type="button" {...common} onClick={() => doIt.mutate({ kind: "acknowledge" })}>
          {s.alarms.acknowledge}
        </button>
      )}
      {alarm.state === "shelved" && (
        <button type="button" {...common} onClick={() => doIt.mutate({ kind: "unshelve" })}>
          {s.alarms.unshelve}
        </button>
      )}
      {alarm.state === "out_of_service" && (
        <button type="button" {...common} onClick={() => doIt.mutate({ kind: "return-to-service" })}>
          {s.alarms.returnToService}
        </button>
      )}
      {alarm.machine_id && (
        <>
          <OutcomeMenu about={{ machineId: alarm.machine_id, predictionId: alarm.prediction_id, alarmId: alarm.alarm_id }} />
          <WorkOrderButton about={workAbout(alarm)} />
        </>
      )}
      {alarm.prediction_id && (
        <Link className="button" to="/predictions/$predictionId" params={{ predictionId: alarm.prediction_id }}>
          {s.alarms.evidence}
        </Link>
      )}
      {stands(alarm) && (
        <Menu
          label={s.alarms.more}
          disabled={!may}
          choices={[
            { key: "shelve", label: s.alarms.shelve, choose: () => setAsking("shelve") },
            { key: "oos", label: s.alarms.outOfService, choose: () => setAsking("out-of-service") },
          ]}
        >
          <span className="visually-hidden">{s.alarms.more}</span>
          <span aria-hidden="true">⋯</span>
        </Menu>
      )}
      {asking && <ReasonDialog alarm={alarm} kind={asking} onClose={() => setAsking(null)} />}
    </span>
  );
}

export const workAbout = (alarm: Alarm) => ({
  machineId: alarm.machine_id,
  alarmId: alarm.alarm_id,
  predictionId: alarm.prediction_id,
  cause: alarm.title,
  description: [
    alarm.cause,
    alarm.detail,
    alarm.value === null ? "" : `${s.alarms.columns.value}: ${withUnit(alarm.value, alarm.unit)} / ${withUnit(alarm.setpoint, alarm.unit)}`,
    `${s.alarms.columns.response}: ${alarm.response}`,
    `${s.alarms.consequence}: ${alarm.consequence}`,
  ]
    .filter(Boolean)
    .join("\n"),
  priority: alarm.priority,
  procedure: alarm.procedure,
});
