/** What became of an alert, in two clicks. */
import { useMutation, useQueryClient } from "@tanstack/react-query";
import { useRef } from "react";

import { reportOutcome } from "../api/queries";
import { OUTCOMES, type Outcome } from "../api/vocabulary";
import { session } from "../auth/session";
import { s } from "../strings";
import { Menu } from "./Menu";
import { notify, notifyFailure } from "./notices";

export interface About {
  machineId: string;
  predictionId: string | null;
  alarmId?: string | null;
}

export function OutcomeMenu({ about }: { about: About }) {
  const client = useQueryClient();
  // One key until it is through: a second try after a failure cannot count twice.
  const key = useRef<{ outcome: Outcome; key: string } | null>(null);
  const report = useMutation({
    mutationFn: (outcome: Outcome) => {
      if (key.current?.outcome !== outcome) key.current = { outcome, key: crypto.randomUUID() };
      return reportOutcome(about, outcome, key.current.key);
    },
    onSuccess: (receipt, outcome) => {
      key.current = null;
      notify(receipt.is_repeat ? s.outcome.repeat : s.outcome.sent(s.outcome[outcome], about.machineId));
      void client.invalidateQueries({ refetchType: "active" });
    },
    onError: notifyFailure,
  });
  const may = session.atLeast("operator");
  return (
    <Menu
      label={s.outcome.title(about.machineId)}
      disabled={!may || report.isPending}
      {...(may ? {} : { title: s.alarms.needsRole("operator") })}
      choices={OUTCOMES.map((outcome) => ({
        key: outcome,
        label: s.outcome[outcome],
        hint: s.outcome.hint[outcome],
        choose: () => report.mutate(outcome),
      }))}
    >
      {s.outcome.column}
    </Menu>
  );
}
