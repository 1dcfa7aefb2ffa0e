/** The state of a query around its content: loading, failing, failing but with older data. */
import type { UseQueryResult } from "@tanstack/react-query";
import { useQueryClient } from "@tanstack/react-query";
import type { ReactNode } from "react";

import { asProblem } from "../api/problem";
import { s } from "../strings";

export function Loaded<T>({ query, children, notFound }: { query: UseQueryResult<T>; children: (data: T) => ReactNode; notFound?: string }) {
  if (query.data === undefined) {
    if (query.error) return <ProblemNote error={query.error} {...(notFound === undefined ? {} : { notFound })} />;
    return <p className="loading" role="status">{s.loading}</p>;
  }
  return (
    <>
      {query.error && <ProblemNote error={query.error} />}
      {children(query.data)}
    </>
  );
}

export function ProblemNote({ error, notFound }: { error: unknown; notFound?: string }) {
  const client = useQueryClient();
  const problem = asProblem(error);
  let title = problem.title;
  let detail = problem.detail;
  if (problem.status === 429) {
    title = s.problems.busy(problem.retryAfter);
    detail = s.problems.busyDetail;
  } else if (problem.status === 403) title = s.problems.forbidden;
  else if (problem.status === 404 && notFound) [title, detail] = [notFound, ""];
  return (
    <div className="note problem" role="alert">
      <strong>{title}</strong> {detail}{" "}
      {problem.isPassing && (
        <button type="button" className="quiet" onClick={() => void client.invalidateQueries({ refetchType: "active" })}>
          {s.retryNow}
        </button>
      )}
    </div>
  );
}
