/**
 * OpenID Connect: authorization code flow with PKCE (RFC 7636, S256), for a public client.
 *
 * Nothing but the verifier and the state is kept while the browser is away at the provider, in this
 * tab's sessionStorage. A refresh token, if the provider gives one, stays in memory.
 */
import type { Session } from "./session";

export interface Provider {
  issuer: string;
  authorization_endpoint: string;
  token_endpoint: string;
  end_session_endpoint?: string | null;
  client_id: string;
  scopes: string[];
  audience?: string | null;
}

export const CALLBACK = "/signin/callback";
const PENDING = "aegisops.oidc";

interface Pending {
  state: string;
  verifier: string;
  returnTo: string;
}

const base64url = (bytes: Uint8Array): string =>
  btoa(String.fromCharCode(...bytes)).replaceAll("+", "-").replaceAll("/", "_").replace(/=+$/, "");

const random = (): string => base64url(crypto.getRandomValues(new Uint8Array(32)));

/** S256 challenge of a verifier. */
export async function challengeOf(verifier: string): Promise<string> {
  return base64url(new Uint8Array(await crypto.subtle.digest("SHA-256", new TextEncoder().encode(verifier))));
}

/** Where to send the browser; remembers what the answer must match. */
export async function begin(provider: Provider, origin: string, returnTo: string, storage: Storage): Promise<string> {
  const pending: Pending = { state: random(), verifier: random(), returnTo };
  storage.setItem(PENDING, JSON.stringify(pending));
  const url = new URL(provider.authorization_endpoint);
  const parameters: Record<string, string> = {
    response_type: "code",
    client_id: provider.client_id,
    redirect_uri: origin + CALLBACK,
    scope: provider.scopes.join(" "),
    state: pending.state,
    code_challenge: await challengeOf(pending.verifier),
    code_challenge_method: "S256",
  };
  if (provider.audience) parameters["audience"] = provider.audience;
  for (const [name, value] of Object.entries(parameters)) url.searchParams.set(name, value);
  return url.toString();
}

export class SignInFailed extends Error {
  constructor(
    readonly kind: "wrong-state" | "refused",
    detail = "",
  ) {
    super(detail);
  }
}

/** Finish at the callback address: the page to return to. The code is worth nothing twice. */
export async function finish(provider: Provider, address: URL, storage: Storage, session: Session): Promise<string> {
  const kept = storage.getItem(PENDING);
  storage.removeItem(PENDING);
  const pending = kept ? (JSON.parse(kept) as Pending) : null;
  const told = address.searchParams;
  if (!pending || told.get("state") !== pending.state) throw new SignInFailed("wrong-state");
  const code = told.get("code");
  if (!code) throw new SignInFailed("refused", told.get("error_description") ?? told.get("error") ?? "");
  const tokens = await exchange(provider, {
    grant_type: "authorization_code",
    code,
    redirect_uri: address.origin + CALLBACK,
    client_id: provider.client_id,
    code_verifier: pending.verifier,
  });
  take(provider, tokens, session);
  return pending.returnTo;
}

function take(provider: Provider, tokens: Tokens, session: Session): string {
  if (!session.signIn(tokens.access_token)) throw new SignInFailed("refused");
  const refresh = tokens.refresh_token;
  session.renew = refresh
    ? async () => {
        const again = await exchange(provider, {
          grant_type: "refresh_token",
          refresh_token: refresh,
          client_id: provider.client_id,
        });
        return take(provider, { refresh_token: refresh, ...again }, session);
      }
    : null;
  return tokens.access_token;
}

interface Tokens {
  access_token: string;
  refresh_token?: string;
}

async function exchange(provider: Provider, form: Record<string, string>): Promise<Tokens> {
  let response: Response;
  try {
    response = await fetch(provider.token_endpoint, { method: "POST", body: new URLSearchParams(form) });
  } catch (error) {
    throw new SignInFailed("refused", String(error));
  }
  const told = (await response.json().catch(() => ({}))) as Record<string, unknown>;
  if (!response.ok || typeof told["access_token"] !== "string") {
    throw new SignInFailed("refused", String(told["error_description"] ?? told["error"] ?? response.status));
  }
  const refresh = told["refresh_token"];
  return { access_token: told["access_token"], ...(typeof refresh === "string" ? { refresh_token: refresh } : {}) };
}
