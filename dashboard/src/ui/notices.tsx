/** Short confirmations and failures of what a person did; read out by screen readers. */
import { useSyncExternalStore } from "react";

import { asProblem } from "../api/problem";
import { s } from "../strings";

export interface Notice {
  id: number;
  text: string;
  isError: boolean;
}

const SHOWN_MS = 6_000;
let notices: Notice[] = [];
let lastId = 0;
const listeners = new Set<() => void>();

function change(next: Notice[]): void {
  notices = next;
  for (const listener of listeners) listener();
}

export function notify(text: string, isError = false): void {
  const id = ++lastId;
  change([...notices.slice(-3), { id, text, isError }]);
  setTimeout(() => dismiss(id), isError ? SHOWN_MS * 2 : SHOWN_MS);
}

/** Say what an action that failed was answered with. */
export function notifyFailure(error: unknown): void {
  const problem = asProblem(error);
  const title = problem.status === 403 ? s.problems.forbidden : problem.status === 409 ? s.problems.conflict : problem.title;
  notify(problem.detail && problem.status !== 409 ? `${title}: ${problem.detail}` : title, true);
}

export const dismiss = (id: number): void => change(notices.filter((n) => n.id !== id));

export function Notices() {
  const shown = useSyncExternalStore(
    (listener) => {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
    () => notices,
  );
  return (
    <div className="notices" role="status" aria-live="polite">
      {shown.map((notice) => (
        <div key={notice.id} className={notice.isError ? "notice error" : "notice"}>
          <span>{notice.text}</span>
          <button type="button" className="icon" aria-label={s.close} onClick={() => dismiss(notice.id)}>
            <span aria-hidden="true">✕</span>
          </button>
        </div>
      ))}
    </div>
  );
}
