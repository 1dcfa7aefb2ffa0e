/** What the pages ask for and how long an answer is good. One function per resource. */
import { QueryClient, keepPreviousData, queryOptions } from "@tanstack/react-query";

import { answer, api } from "./client";
import { asProblem } from "./problem";
import type { Alarm, AlarmList, WorkOrder } from "./types";
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

export interface SeriesName {
  kind: "channel" | "feature" | "risk";
  name: string;
}

const isoSpan = (span: Span) => ({
  from: new Date(span.from * 1_000).toISOString(),
  to: new Date(span.to * 1_000).toISOString(),
});

/** One curve. The API answers in buckets, so a year costs about what an hour does. */
export const history = (machineId: string, of: SeriesName, span: Span, points: number) =>
  queryOptions({
    queryKey: ["history", machineId, of, span, points],
    queryFn: ({ signal }) =>
      answer(
        api.GET("/api/v1/machines/{machine_id}/history", {
          params: {
            path: { machine_id: machineId },
            query: {
              ...(of.kind === "channel" ? { channel: of.name } : of.kind === "feature" ? { feature: of.name } : { risk: true }),
              ...isoSpan(span),
              points,
            },
          },
          signal,
        }),
      ),
    // A span that has been left is soon forgotten: while following now there is a new one each time.
    gcTime: 15_000,
    staleTime: 30_000,
    placeholderData: keepPreviousData,
  });

export const machineEvents = (machineId: string, span: Span) =>
  queryOptions({
    queryKey: ["events", machineId, span],
    queryFn: ({ signal }) =>
      answer(
        api.GET("/api/v1/machines/{machine_id}/events", {
          params: { path: { machine_id: machineId }, query: isoSpan(span) },
          signal,
        }),
      ),
    gcTime: 15_000,
    staleTime: 30_000,
    placeholderData: keepPreviousData,
  });

export const health = (machineId: string) =>
  queryOptions({
    queryKey: ["health", machineId],
    queryFn: ({ signal }) =>
      answer(api.GET("/api/v1/health/{machine_id}", { params: { path: { machine_id: machineId } }, signal })),
    refetchInterval: every(5_000),
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

const ALARMS = { alarm: ["alarms", "alarm"], advisory: ["alarms", "advisory"] } as const;

const alarmList = (kind: "alarm" | "advisory") =>
  queryOptions({
    queryKey: ALARMS[kind],
    queryFn: ({ signal }) => answer(api.GET("/api/v1/alarms", { params: { query: { kind } }, signal })) as Promise<AlarmList>,
    refetchInterval: every(10_000),
    structuralSharing: (before, after) => newest(before as AlarmList | undefined, after as AlarmList),
  });

export const alarms = () => alarmList("alarm");
export const advisories = () => alarmList("advisory");

export const alarmJournal = (machineId?: string) =>
  queryOptions({
    queryKey: ["alarm-journal", machineId],
    queryFn: ({ signal }) =>
      answer(api.GET("/api/v1/alarms/journal", { params: { query: machineId ? { machine_id: machineId } : {} }, signal })),
    refetchInterval: every(10_000),
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
    queryFn: ({ signal }) => answer(api.GET("/api/v1/work-orders", { params: { query: {} }, signal })) as Promise<{ work_orders: WorkOrder[] }>,
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

/** Where a frame may load the report from, for a short while: a frame sends no token. */
export const driftReport = (machineClass: string) =>
  queryOptions({
    queryKey: ["drift-report", machineClass],
    queryFn: () =>
      answer(
        api.POST("/api/v1/models/{machine_class}/drift/report-ticket", {
          params: { path: { machine_class: machineClass } },
        }),
      ),
    staleTime: Infinity,
    gcTime: 0,
  });

export const systemStatus = () =>
  queryOptions({
    queryKey: ["system"],
    queryFn: ({ signal }) => answer(api.GET("/api/v1/system/status", { signal })),
    refetchInterval: every(5_000),
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
      changedTo(await answer(api.POST("/api/v1/alarms/{alarm_id}/acknowledge", { params, body: { version, ...comment } })));
      break;
    }
    case "shelve": {
      const body = { version, reason: action.reason, minutes: action.minutes };
      changedTo(await answer(api.POST("/api/v1/alarms/{alarm_id}/shelve", { params, body })));
      break;
    }
    case "unshelve":
      changedTo(await answer(api.POST("/api/v1/alarms/{alarm_id}/unshelve", { params, body: { version } })));
      break;
    case "out-of-service":
      changedTo(await answer(api.POST("/api/v1/alarms/{alarm_id}/out-of-service", { params, body: { version, reason: action.reason } })));
      break;
    case "return-to-service":
      changedTo(await answer(api.POST("/api/v1/alarms/{alarm_id}/return-to-service", { params, body: { version } })));
      break;
  }
}

const changedTo = (alarm: unknown): void => mergeLiveAlarms([alarm as Alarm]);

/** What became of a machine's prediction or alarm. */
export const reportOutcome = (
  about: { machineId: string; predictionId: string | null; alarmId?: string | null },
  outcome: Outcome,
  key: string,
) =>
  answer(
    api.POST("/api/v1/feedback", {
      body: {
        machine_id: about.machineId,
        prediction_id: about.predictionId ?? "",
        outcome,
        idempotency_key: key,
      },
    }),
  );

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
  for (const kind of ["alarm", "advisory"] as const) {
    const mine = changed.filter((alarm) => alarm.kind === kind);
    if (mine.length === 0) continue;
    queryClient.setQueryData<AlarmList>(ALARMS[kind], (known) => known && { ...known, alarms: merged(known.alarms, mine) });
  }
  // Groups and first-outs of a flood are the API's to say.
  if (changed.length > 0) void queryClient.invalidateQueries({ queryKey: ALARMS.alarm, refetchType: "active" });
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
