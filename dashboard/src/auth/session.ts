/**
 * The access token of this tab: taken from the address once, kept in the tab, forgotten at its end.
 *
 * A token in the fragment (`/#token=…`) never leaves the browser in a request, and it is removed
 * from the address and the history before anything else runs. sessionStorage survives a reload but
 * no other tab and no other origin sees it.
 */
const KEY = "aegisops.token";

export type Role = "viewer" | "operator" | "engineer" | "admin";
const ROLES: readonly Role[] = ["viewer", "operator", "engineer", "admin"];

export interface Identity {
  subject: string;
  role: Role;
  /** ms since 1970. */
  expires: number;
}

/** `signed-out` without a token; `expired` when the API or the clock refused the one we had. */
export type State = "signed-out" | "signed-in" | "expired";

/** Claims of a token, unverified: only to show them. The API alone decides what they are worth. */
export function identityOf(token: string): Identity | null {
  try {
    const payload = token.split(".")[1] ?? "";
    const bytes = Uint8Array.from(
      atob(payload.replaceAll("-", "+").replaceAll("_", "/")),
      (c) => c.charCodeAt(0),
    );
    const claims = JSON.parse(new TextDecoder().decode(bytes)) as Record<string, unknown>;
    const role = ROLES.find((r) => r === claims["role"]) ?? "viewer";
    const expires = Number(claims["exp"]) * 1_000;
    if (typeof claims["sub"] !== "string" || !Number.isFinite(expires)) return null;
    return { subject: claims["sub"], role, expires };
  } catch {
    return null;
  }
}

/** The token of a fragment such as `#token=…`; null when there is none. */
export function tokenInFragment(fragment: string): string | null {
  return new URLSearchParams(fragment.replace(/^#/, "")).get("token");
}

export class Session {
  private current: string | null = null;
  private state_: State = "signed-out";
  private listeners = new Set<() => void>();
  /** Gets a new token without a person, if that is possible (OIDC refresh). */
  renew: (() => Promise<string | null>) | null = null;

  constructor(private readonly storage: Pick<Storage, "getItem" | "setItem" | "removeItem">) {
    const kept = storage.getItem(KEY);
    if (kept && identityOf(kept)) {
      this.current = kept;
      this.state_ = "signed-in";
    }
  }

  token(): string | null {
    return this.current;
  }

  state = (): State => this.state_;

  identity(): Identity | null {
    return this.current ? identityOf(this.current) : null;
  }

  /** Whether actions that need `role` are worth offering as such; the API still decides. */
  atLeast(role: Role): boolean {
    const mine = this.identity()?.role;
    return mine !== undefined && ROLES.indexOf(mine) >= ROLES.indexOf(role);
  }

  /** False when the text is no token at all. */
  signIn(token: string): boolean {
    const trimmed = token.trim();
    if (!identityOf(trimmed)) return false;
    this.current = trimmed;
    this.storage.setItem(KEY, trimmed);
    this.change("signed-in");
    return true;
  }

  signOut(): void {
    this.current = null;
    this.storage.removeItem(KEY);
    this.change("signed-out");
  }

  /** The API refused `token`. Calls that were on their way with an older one change nothing. */
  refused(token: string | null): void {
    if (token !== this.current || this.state_ !== "signed-in") return;
    if (!this.renew) return this.change("expired");
    void this.renew().then(
      (fresh) => (fresh && this.signIn(fresh)) || this.change("expired"),
      () => this.change("expired"),
    );
  }

  subscribe = (listener: () => void): (() => void) => {
    this.listeners.add(listener);
    return () => this.listeners.delete(listener);
  };

  private change(state: State): void {
    this.state_ = state;
    for (const listener of this.listeners) listener();
  }
}

export const session = new Session(window.sessionStorage);

/** Take a token out of the address; call before anything else looks at it. */
export function takeTokenFromAddress(): void {
  const token = tokenInFragment(window.location.hash);
  if (token === null) return;
  window.history.replaceState(null, "", window.location.pathname + window.location.search);
  session.signIn(token);
}
