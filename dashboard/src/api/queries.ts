/** What the pages ask for and how long an answer is good. One function per resource. */
import { QueryClient, keepPreviousData, queryOptions } from "@tanstack/react-query";

import { answer, api } from "./client";
import { asProblem } from "./problem";
import type { Alarm, AlarmList } from "./types";
import type { Outcome } from "./vocabulary";

const TRIES = 3;

export const queryClient = new QueryClient({
  defaultOptions: {
    queries: {
      staleTime: 2_000,
      gcTime: 120_000,
      retry: (count, error) => asProblem(error).isPassing && count < TRIES,
      retryDelay: (count, error) => {
        const asked = asProblem(error).retryAfter;
        return asked ? asked * 1_000 : Math.min(500 * 2 ** count, 5_000);
      },
      // A page that could not be filled tries again by itself; one in the background does nothing.
      refetchInterval: (query) => (query.state.status === "error" ? 5_000 : false),
      refetchOnWindowFocus: true,
    },
    mutations: { retry: false },
  },
});

/** As `refetchInterval`: every `ms`, and sooner after an error the API may get over. */
const every = (ms: number) => (query: { state: { status: string } }) =>
  query.state.status === "error" ? Math.min(ms, 5_000) : ms;

export interface FleetFilter {
  site?: string;
  area?: string;
  limit?: number;
}

export const fleet = (filter: FleetFilter = {}) =>
  queryOptions({
    queryKey: ["fleet", filter],
    queryFn: ({ signal }) =>
      answer(api.GET("/api/v1/machines", { params: { query: { limit: 1000, ...filter } }, signal })),
    refetchInterval: every(5_000),
    placeholderData: keepPreviousData,
  });

export const sites = () =>
  queryOptions({
    queryKey: ["sites"],
    queryFn: ({ signal }) => answer(api.GET("/api/v1/sites", { signal })),
    refetchInterval: every(10_000),
  });

export const machine = (machineId: string) =>
  queryOptions({
    queryKey: ["machine", machineId],
    queryFn: ({ signal }) =>
      answer(
        api.GET("/api/v1/machines/{machine_id}", { params: { path: { machine_id: machineId } }, signal }),
      ),
    refetchInterval: every(5_000),
  });

export const machineClasses = () =>
  queryOptions({
    queryKey: ["machine-classes"],
    queryFn: ({ signal }) => answer(api.GET("/api/v1/machine-classes", { signal })),
    staleTime: 600_000,
  });

export interface Span {
  /** s since 1970. */
  from: number;
  to: number;
}

export const history = (machineId: string, series: readonly string[], span: Span, points: number, live: number | false) =>
  queryOptions({
    queryKey: ["history", machineId, series, span, points],
    queryFn: ({ signal }) =>
      answer(
        api.GET("/api/v1/machines/{machine_id}/history", {
          params: {
            path: { machine_id: machineId },
            query: {
              series: [...series],
              from: new Date(span.from * 1_000).toISOString(),
              to: new Date(span.to * 1_000).toISOString(),
              points,
            },
          },
          signal,
        }),
      ),
    refetchInterval: live,
    placeholderData: keepPreviousData,
    staleTime: 5_000,
  });

export const machinePredictions = (machineId: string, limit = 50) =>
  queryOptions({
    queryKey: ["predictions", machineId, limit],
    queryFn: ({ signal }) =>
      answer(
        api.GET("/api/v1/machines/{machine_id}/predictions", {
          params: { path: { machine_id: machineId }, query: { limit } },
          signal,
        }),
      ),
    refetchInterval: every(10_000),
  });

export const prediction = (predictionId: string) =>
  queryOptions({
    queryKey: ["prediction", predictionId],
    queryFn: ({ signal }) =>
      answer(
        api.GET("/api/v1/predictions/{prediction_id}", {
          params: { path: { prediction_id: predictionId } },
          signal,
        }),
      ),
    staleTime: 60_000,
  });

const ALARMS = ["alarms"] as const;

export const alarms = () =>
  queryOptions({
    queryKey: ALARMS,
    queryFn: ({ signal }) => answer(api.GET("/api/v1/alarms", { params: { query: {} }, signal })),
    refetchInterval: every(10_000),
    structuralSharing: (before, after) => newest(before as AlarmList | undefined, after as AlarmList),
  });

export const alarmKpi = (span: Span) =>
  queryOptions({
    queryKey: ["alarm-kpi", span],
    queryFn: ({ signal }) => answer(api.GET("/api/v1/alarms/kpi", { params: { query: isoSpan(span) }, signal })),
    placeholderData: keepPreviousData,
    refetchInterval: every(60_000),
  });

export const alarmDefinitions = () =>
  queryOptions({
    queryKey: ["alarm-definitions"],
    queryFn: ({ signal }) => answer(api.GET("/api/v1/alarms/definitions", { signal })),
    staleTime: 600_000,
  });

export const workOrders = () =>
  queryOptions({
    queryKey: ["work-orders"],
    queryFn: ({ signal }) => answer(api.GET("/api/v1/work-orders", { params: { query: {} }, signal })),
    refetchInterval: every(15_000),
  });

export const handover = (since: string) =>
  queryOptions({
    queryKey: ["handover", since],
    queryFn: ({ signal }) => answer(api.GET("/api/v1/handover", { params: { query: { since } }, signal })),
    refetchInterval: every(60_000),
    placeholderData: keepPreviousData,
  });

export const models = () =>
  queryOptions({
    queryKey: ["models"],
    queryFn: ({ signal }) => answer(api.GET("/api/v1/models", { signal })),
    refetchInterval: every(30_000),
  });

export const drift = (machineClass: string) =>
  queryOptions({
    queryKey: ["drift", machineClass],
    queryFn: ({ signal }) =>
      answer(
        api.GET("/api/v1/models/{machine_class}/drift", {
          params: { path: { machine_class: machineClass } },
          signal,
        }),
      ),
    staleTime: 60_000,
  });

export const systemStatus = () =>
  queryOptions({
    queryKey: ["system"],
    queryFn: ({ signal }) => answer(api.GET("/api/v1/system/status", { signal })),
    refetchInterval: every(5_000),
  });

const isoSpan = (span: Span) => ({
  from: new Date(span.from * 1_000).toISOString(),
  to: new Date(span.to * 1_000).toISOString(),
});

// --- What people do ---------------------------------------------------------------------------

export type AlarmAction =
  | { kind: "acknowledge"; comment?: string }
  | { kind: "shelve"; reason: string; minutes: number }
  | { kind: "unshelve" }
  | { kind: "out-of-service"; reason: string }
  | { kind: "return-to-service" };

/** Act on an alarm as it was seen: the API refuses (409) when it has changed since. */
export async function act(alarm: Alarm, action: AlarmAction): Promise<void> {
  const params = { path: { alarm_id: alarm.alarm_id } };
  const version = alarm.version;
  switch (action.kind) {
    case "acknowledge": {
      const comment = action.comment ? { comment: action.comment } : {};
      mergeLiveAlarms([await answer(api.POST("/api/v1/alarms/{alarm_id}/acknowledge", { params, body: { version, ...comment } }))]);
      break;
    }
    case "shelve": {
      const body = { version, reason: action.reason, minutes: action.minutes };
      mergeLiveAlarms([await answer(api.POST("/api/v1/alarms/{alarm_id}/shelve", { params, body }))]);
      break;
    }
    case "unshelve":
      mergeLiveAlarms([await answer(api.POST("/api/v1/alarms/{alarm_id}/unshelve", { params, body: { version } }))]);
      break;
    case "out-of-service":
      mergeLiveAlarms([await answer(api.POST("/api/v1/alarms/{alarm_id}/out-of-service", { params, body: { version, reason: action.reason } }))]);
      break;
    case "return-to-service":
      mergeLiveAlarms([await answer(api.POST("/api/v1/alarms/{alarm_id}/return-to-service", { params, body: { version } }))]);
      break;
  }
}

export interface Report {
  machine_id: string;
  prediction_id: string;
  outcome: Outcome;
  failure_mode?: string | null;
  idempotency_key: string;
}

export const reportOutcome = (report: Report) => answer(api.POST("/api/v1/feedback", { body: report }));

export interface Draft {
  machine_id: string;
  alarm_id: string | null;
  prediction_id: string | null;
  title: string;
  description: string;
  priority: number;
  procedure: string | null;
  idempotency_key: string;
}

export const createWorkOrder = (draft: Draft) => answer(api.POST("/api/v1/work-orders", { body: draft }));

export const closeWorkOrder = (workOrderId: string, outcome: Outcome, comment: string | null, key: string) =>
  answer(
    api.POST("/api/v1/work-orders/{work_order_id}/outcome", {
      params: { path: { work_order_id: workOrderId } },
      body: { outcome, comment, failure_mode: null, idempotency_key: key },
    }),
  );

export const replayPrediction = (predictionId: string) =>
  answer(
    api.POST("/api/v1/predictions/{prediction_id}/replay", {
      params: { path: { prediction_id: predictionId } },
    }),
  );

export const askPrediction = (machineId: string) =>
  answer(api.POST("/api/v1/predict", { body: { machine_id: machineId, at: "now" } }));

/** An answer of the API as a file of the person's computer. */
export async function download(path: string, name: string): Promise<void> {
  const blob = await answer<Blob>(
    // Exports are documented as JSON; here they are only passed on.
    (api.GET as unknown as (p: string, o: object) => Promise<{ data?: Blob; response: Response }>)(path, {
      parseAs: "blob",
    }),
  );
  const url = URL.createObjectURL(blob);
  const link = document.createElement("a");
  link.href = url;
  link.download = name;
  link.click();
  URL.revokeObjectURL(url);
}

// --- What comes live ----------------------------------------------------------------------------

/** Put changed alarms in their place; an older version never replaces a newer one. */
export function mergeLiveAlarms(changed: readonly Alarm[]): void {
  if (changed.length === 0) return;
  queryClient.setQueryData<AlarmList>(ALARMS, (known) => known && { ...known, alarms: merged(known.alarms, changed) });
}

export function merged(known: readonly Alarm[], changed: readonly Alarm[]): Alarm[] {
  const byId = new Map(known.map((alarm) => [alarm.alarm_id, alarm]));
  for (const alarm of changed) {
    const before = byId.get(alarm.alarm_id);
    if (before && before.version > alarm.version) continue;
    if (alarm.state === "normal") byId.delete(alarm.alarm_id);
    else byId.set(alarm.alarm_id, alarm);
  }
  return [...byId.values()];
}

/** An answer that was under way while a newer version came live does not turn the time back. */
function newest(before: AlarmList | undefined, after: AlarmList): AlarmList {
  if (!before) return after;
  const known = new Map(before.alarms.map((alarm) => [alarm.alarm_id, alarm]));
  const alarms = after.alarms.map((alarm) => {
    const mine = known.get(alarm.alarm_id);
    return mine && mine.version >= alarm.version ? mine : alarm;
  });
  return { ...after, alarms };
}

/** Something may have been missed: ask again for what is on the screen. */
export function refreshAfterGap(): void {
  void queryClient.invalidateQueries({ refetchType: "active" });
}
