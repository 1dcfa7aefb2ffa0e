/** Calls of the API. Paths, bodies and answers are typed by its OpenAPI document (schema.d.ts). */
import createClient from "openapi-fetch";

import { session } from "../auth/session";
import { ApiProblem, problemOf, unreachable } from "./problem";
import type { paths } from "./schema";

export const BASE = "/api/v1";
const TIMEOUT_MS = 15_000;

async function send(request: Request): Promise<Response> {
  const token = session.token();
  if (token) request.headers.set("authorization", `Bearer ${token}`);
  let response: Response;
  try {
    const signal = AbortSignal.any([request.signal, AbortSignal.timeout(TIMEOUT_MS)]);
    response = await fetch(request, { signal });
  } catch (error) {
    if (request.signal.aborted) throw error;
    throw unreachable();
  }
  if (response.status === 401) session.refused(token);
  return response;
}

export const api = createClient<paths>({ baseUrl: "", fetch: send });

interface Answer<T> {
  data?: T;
  error?: unknown;
  response: Response;
}

/** The body of a good answer; `ApiProblem` for every other. */
export async function answer<T>(call: Promise<Answer<T>>): Promise<T> {
  let told: Answer<T>;
  try {
    told = await call;
  } catch (error) {
    if (error instanceof SyntaxError) throw new ApiProblem(-1, error.name, error.message);
    throw error;
  }
  if (!told.response.ok) throw problemOf(told.response, told.error);
  return told.data as T;
}
