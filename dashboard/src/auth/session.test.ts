import { describe, expect, it, vi } from "vitest";

import { begin, challengeOf, finish, SignInFailed, type Provider } from "./oidc";
import { Session, identityOf, tokenInFragment } from "./session";

const token = (claims: object) => `e30.${btoa(JSON.stringify(claims)).replaceAll("+", "-").replaceAll("/", "_").replace(/=+$/, "")}.s`;
const mine = token({ sub: "kim", role: "operator", exp: 4_000_000_000 });

class Memory implements Storage {
  private kept = new Map<string, string>();
  get length() {
    return this.kept.size;
  }
  clear = () => this.kept.clear();
  key = (i: number) => [...this.kept.keys()][i] ?? null;
  getItem = (k: string) => this.kept.get(k) ?? null;
  setItem = (k: string, v: string) => void this.kept.set(k, v);
  removeItem = (k: string) => void this.kept.delete(k);
}

describe("the session", () => {
  it("finds a token in the fragment only", () => {
    expect(tokenInFragment("#token=a.b.c")).toBe("a.b.c");
    expect(tokenInFragment("#other")).toBeNull();
  });
  it.each(["", "x", "a.b.c", "e30.e30.x", token({ sub: 5, exp: 1 })])("takes %j for no token", (text) => expect(identityOf(text)).toBeNull());
  it("shows an unknown role as the least one", () => expect(identityOf(token({ sub: "a", role: "root", exp: 1 }))?.role).toBe("viewer"));
  it("orders roles", () => {
    const session = new Session(new Memory());
    session.signIn(mine);
    expect([session.atLeast("viewer"), session.atLeast("operator"), session.atLeast("engineer")]).toEqual([true, true, false]);
  });
  it("is kept over a reload and gone after signing out", () => {
    const storage = new Memory();
    new Session(storage).signIn(mine);
    const again = new Session(storage);
    expect(again.state()).toBe("signed-in");
    again.signOut();
    expect(new Session(storage).token()).toBeNull();
  });
  it("expires once, and not because of an older token", () => {
    const session = new Session(new Memory());
    session.signIn(mine);
    session.refused("another");
    expect(session.state()).toBe("signed-in");
    session.refused(mine);
    expect(session.state()).toBe("expired");
  });
  it("renews itself where the provider allows it", async () => {
    const session = new Session(new Memory());
    session.signIn(mine);
    const fresh = token({ sub: "kim", role: "operator", exp: 4_000_000_001 });
    session.renew = () => Promise.resolve(fresh);
    session.refused(mine);
    await vi.waitFor(() => expect(session.token()).toBe(fresh));
    expect(session.state()).toBe("signed-in");
  });
});

const provider: Provider = {
  issuer: "https://id.example",
  authorization_endpoint: "https://id.example/authorize",
  token_endpoint: "https://id.example/token",
  client_id: "console",
  scopes: ["openid"],
};

describe("OpenID Connect", () => {
  it("makes the S256 challenge of RFC 7636, appendix B", async () =>
    expect(await challengeOf("dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk")).toBe("E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"));

  it("asks for a code with state and challenge, and keeps the verifier here", async () => {
    const storage = new Memory();
    const url = new URL(await begin(provider, "https://console.example", "/alarms", storage));
    const { state, verifier } = JSON.parse(storage.getItem("aegisops.oidc") ?? "{}");
    expect(url.searchParams.get("state")).toBe(state);
    expect(url.searchParams.get("code_challenge")).toBe(await challengeOf(verifier));
    expect(url.searchParams.get("code_challenge_method")).toBe("S256");
    expect(url.toString()).not.toContain(verifier);
  });

  it("refuses an answer to another sign-in, and one without a sign-in", async () => {
    const storage = new Memory();
    const session = new Session(new Memory());
    await begin(provider, "https://console.example", "/", storage);
    const forged = new URL("https://console.example/signin/callback?code=c&state=forged");
    await expect(finish(provider, forged, storage, session)).rejects.toBeInstanceOf(SignInFailed);
    await expect(finish(provider, forged, storage, session)).rejects.toMatchObject({ kind: "wrong-state" });
    expect(session.token()).toBeNull();
  });

  it("exchanges the code with its verifier and returns to the page", async () => {
    const storage = new Memory();
    const session = new Session(new Memory());
    await begin(provider, "https://console.example", "/alarms", storage);
    const { state, verifier } = JSON.parse(storage.getItem("aegisops.oidc") ?? "{}");
    const fetched = vi.spyOn(globalThis, "fetch").mockResolvedValue(new Response(JSON.stringify({ access_token: mine, refresh_token: "r" })));
    const page = await finish(provider, new URL(`https://console.example/signin/callback?code=c&state=${state}`), storage, session);
    const form = fetched.mock.calls[0]?.[1]?.body as URLSearchParams;
    expect(form.get("code_verifier")).toBe(verifier);
    expect([page, session.token()]).toEqual(["/alarms", mine]);
    expect(session.renew).not.toBeNull();
    fetched.mockRestore();
  });
});
