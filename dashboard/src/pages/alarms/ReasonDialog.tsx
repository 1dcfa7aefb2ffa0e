/** Shelve for a while, or take out of service: always with a reason. */
import { useMutation } from "@tanstack/react-query";
import { useState } from "react";

import { act } from "../../api/queries";
import type { Alarm } from "../../api/types";
import { s } from "../../strings";
import { duration } from "../../time/format";
import { Dialog } from "../../ui/Dialog";
import { ProblemNote } from "../../ui/Loaded";

const MINUTES = [15, 30, 60, 120, 240, 480] as const;
const SHORTEST_REASON = 3;

export function ReasonDialog({ alarm, kind, onClose }: { alarm: Alarm; kind: "shelve" | "out-of-service"; onClose: () => void }) {
  const [reason, setReason] = useState("");
  const [minutes, setMinutes] = useState<number>(60);
  const isShelving = kind === "shelve";
  const doIt = useMutation({
    mutationFn: () =>
      act(alarm, isShelving ? { kind, reason: reason.trim(), minutes } : { kind, reason: reason.trim() }),
    onSuccess: onClose,
  });
  const title = isShelving ? s.alarms.shelveTitle(alarm.title) : s.alarms.oosTitle(alarm.title);
  return (
    <Dialog title={title} onClose={onClose}>
      <form
        onSubmit={(event) => {
          event.preventDefault();
          doIt.mutate();
        }}
      >
        {doIt.error && <ProblemNote error={doIt.error} />}
        <label>
          {s.alarms.reason}
          <input value={reason} required minLength={SHORTEST_REASON} maxLength={500} autoFocus onChange={(e) => setReason(e.target.value)} />
        </label>
        {isShelving && (
          <label>
            {s.alarms.minutes}
            <select value={minutes} onChange={(e) => setMinutes(Number(e.target.value))}>
              {MINUTES.map((m) => (
                <option key={m} value={m}>
                  {duration(m * 60)}
                </option>
              ))}
            </select>
          </label>
        )}
        <p className="hint">{isShelving ? s.alarms.shelveHint : s.alarms.oosHint}</p>
        <div className="dialog-actions">
          <button type="button" onClick={onClose}>
            {s.cancel}
          </button>
          <button type="submit" className="primary" disabled={doIt.isPending || reason.trim().length < SHORTEST_REASON}>
            {isShelving ? s.alarms.shelve : s.alarms.outOfService}
          </button>
        </div>
      </form>
    </Dialog>
  );
}
