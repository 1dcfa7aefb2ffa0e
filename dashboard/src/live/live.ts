/** The one live connection of this tab, wired to the store, the clock, the session and the alarms. */
import { useEffect, useSyncExternalStore } from "react";

import { BASE } from "../api/client";
import { mergeLiveAlarms, refreshAfterGap } from "../api/queries";
import { session } from "../auth/session";
import { clock } from "../time/clock";
import { Connection, type Interest, type Status } from "./connection";
import { LiveStore } from "./store";

/** Machines in one subscription; the API's default limit. */
export const MOST_MACHINES = 500;
/** Screen updates a second: what people can follow, and a third of what a frame each would cost. */
const FLUSH_MS = 250;

export const store = new LiveStore((run) => setTimeout(() => requestAnimationFrame(run), FLUSH_MS));

const statusListeners = new Set<() => void>();
let wasAway = false;

export const connection = new Connection({
  open: (protocols) => {
    const scheme = window.location.protocol === "https:" ? "wss:" : "ws:";
    return new WebSocket(`${scheme}//${window.location.host}${BASE}/telemetry`, protocols);
  },
  token: () => session.token(),
  onFrame: (frame) => {
    switch (frame.type) {
      case "hello":
      case "heartbeat":
        clock.observe(frame.serverTime);
        break;
      case "alarms":
        mergeLiveAlarms(frame.alarms);
        break;
      case "gap":
      case "dropped":
        refreshAfterGap();
        break;
      default:
        store.apply(frame);
    }
  },
  onStatus: (status) => {
    // What changed while nobody listened is asked for once.
    if (status === "lost" || status === "stalled") wasAway = true;
    if (status === "live" && wasAway) {
      wasAway = false;
      refreshAfterGap();
    }
    for (const listener of statusListeners) listener();
  },
  onUnauthorised: () => session.refused(session.token()),
  random: Math.random,
});

document.addEventListener("visibilitychange", () =>
  connection.visible(document.visibilityState === "visible"),
);
window.addEventListener("online", () => connection.restart());
session.subscribe(() => connection.restart());

export function useConnectionStatus(): Status {
  return useSyncExternalStore(
    (listener) => {
      statusListeners.add(listener);
      return () => statusListeners.delete(listener);
    },
    () => connection.status,
  );
}

/** Receive these machines' values while the page is shown; every page receives alarms. */
export function useLive(machineIds: readonly string[] | null): void {
  const key = machineIds === null ? null : machineIds.slice(0, MOST_MACHINES).join("\n");
  useEffect(() => {
    const ids = key === null ? null : key === "" ? [] : key.split("\n");
    const interest: Interest = { machineIds: ids, kinds: ids?.length === 0 ? ["alarms"] : KINDS };
    store.keep(ids);
    connection.watch(interest);
  }, [key]);
}

const KINDS = ["readings", "features", "predictions", "alarms"];
