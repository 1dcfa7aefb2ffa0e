/** What went wrong with a call, in the API's own words (RFC 9457) where it gave some. */
import { s } from "../strings";

export class ApiProblem extends Error {
  override readonly name = "ApiProblem";

  constructor(
    /** HTTP status; 0 = the API could not be reached. */
    readonly status: number,
    readonly title: string,
    readonly detail: string,
    /** Seconds the API asks us to wait, if it does. */
    readonly retryAfter: number | null = null,
  ) {
    super(detail || title);
  }

  /** Whether the same call may succeed a little later. */
  get isPassing(): boolean {
    return this.status === 0 || this.status === 429 || this.status >= 500;
  }
}

export const unreachable = () => new ApiProblem(0, s.problems.away, s.problems.awayDetail);

/** The problem of an answer that is not 2xx; bodies that are no problem document are tolerated. */
export function problemOf(response: Response, body: unknown): ApiProblem {
  const told = typeof body === "object" && body !== null ? (body as Record<string, unknown>) : {};
  const text = (value: unknown) => (typeof value === "string" ? value : "");
  const wait = Number(response.headers.get("retry-after"));
  return new ApiProblem(
    response.status,
    text(told["title"]) || s.problems.status(response.status),
    text(told["detail"]),
    Number.isFinite(wait) && wait > 0 ? Math.min(wait, 300) : null,
  );
}

/** The problem of anything thrown. */
export function asProblem(error: unknown): ApiProblem {
  if (error instanceof ApiProblem) return error;
  return new ApiProblem(-1, s.problems.unexpected, error instanceof Error ? error.message : String(error));
}
