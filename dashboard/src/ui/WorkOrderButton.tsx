/** A work-order draft in two clicks: the dialog is filled in from what it is about. */
import { useMutation, useQueryClient } from "@tanstack/react-query";
import { useRef, useState } from "react";

import { createWorkOrder } from "../api/queries";
import type { Priority } from "../api/types";
import { session } from "../auth/session";
import { s } from "../strings";
import { Dialog } from "./Dialog";
import { ProblemNote } from "./Loaded";
import { notify } from "./notices";

export interface WorkAbout {
  machineId: string;
  alarmId: string | null;
  predictionId: string | null;
  cause: string;
  description: string;
  priority: Priority;
  procedure: string | null;
}

export function WorkOrderButton({ about }: { about: WorkAbout }) {
  const [isOpen, setOpen] = useState(false);
  const may = session.atLeast("operator");
  return (
    <>
      <button type="button" disabled={!may} title={may ? undefined : s.alarms.needsRole("operator")} onClick={() => setOpen(true)}>
        {s.alarms.workOrder}
      </button>
      {isOpen && <Draft about={about} onClose={() => setOpen(false)} />}
    </>
  );
}

const PRIORITIES: readonly Priority[] = [1, 2, 3, 4];

function Draft({ about, onClose }: { about: WorkAbout; onClose: () => void }) {
  const client = useQueryClient();
  const key = useRef(crypto.randomUUID());
  const [title, setTitle] = useState(s.work.defaultTitle(about.machineId, about.cause));
  const [description, setDescription] = useState(about.description);
  const [priority, setPriority] = useState(about.priority);
  const create = useMutation({
    mutationFn: () =>
      createWorkOrder({
        machine_id: about.machineId,
        alarm_id: about.alarmId,
        prediction_id: about.predictionId,
        title: title.trim(),
        description: description.trim(),
        priority,
        procedure: about.procedure,
        idempotency_key: key.current,
      }),
    onSuccess: (order) => {
      notify(s.work.created(order.work_order_id));
      void client.invalidateQueries({ queryKey: ["work-orders"] });
      onClose();
    },
  });
  return (
    <Dialog title={s.work.draft(about.machineId)} onClose={onClose}>
      <form
        onSubmit={(event) => {
          event.preventDefault();
          create.mutate();
        }}
      >
        {create.error && <ProblemNote error={create.error} />}
        <label>
          {s.work.name}
          <input value={title} maxLength={200} required onChange={(e) => setTitle(e.target.value)} />
        </label>
        <label>
          {s.work.description}
          <textarea rows={6} value={description} maxLength={4000} onChange={(e) => setDescription(e.target.value)} />
        </label>
        <label>
          {s.priority.label}
          <select value={priority} onChange={(e) => setPriority(Number(e.target.value) as Priority)}>
            {PRIORITIES.map((p) => (
              <option key={p} value={p}>
                {s.priority.text(p, s.priority[p])}
              </option>
            ))}
          </select>
        </label>
        {about.procedure && <p className="hint">{s.machine.procedure(about.procedure)}</p>}
        <div className="dialog-actions">
          <button type="button" onClick={onClose}>
            {s.cancel}
          </button>
          <button type="submit" className="primary" disabled={create.isPending} autoFocus>
            {s.work.create}
          </button>
        </div>
      </form>
    </Dialog>
  );
}
