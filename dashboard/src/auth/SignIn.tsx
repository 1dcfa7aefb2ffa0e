/** Sign-in: with the organisation's identity provider, or with a pasted development token. */
import { useQuery } from "@tanstack/react-query";
import { useEffect, useState } from "react";

import { answer, api } from "../api/client";
import { s } from "../strings";
import { ProblemNote } from "../ui/Loaded";
import { SignInFailed, begin, finish } from "./oidc";
import { session } from "./session";

const config = {
  queryKey: ["auth-config"],
  queryFn: () => answer(api.GET("/api/v1/auth/config")),
  staleTime: 60_000,
};

export function SignInPage() {
  return (
    <main className="sign-in" id="content">
      <h1>
        <img src="/icon.svg" alt="" width="32" height="32" /> {s.product} {s.console}
      </h1>
      <Ways />
    </main>
  );
}

/** Over the page when a token ends: what was on the screen stays, and goes on afterwards. */
export function SignInAgain() {
  return (
    <div className="sign-in-again" role="alertdialog" aria-modal="false" aria-labelledby="sign-in-again">
      <h2 id="sign-in-again">{s.signIn.expired}</h2>
      <p>{s.signIn.expiredDetail}</p>
      <Ways />
    </div>
  );
}

function Ways() {
  const ways = useQuery(config);
  const [token, setToken] = useState("");
  const [isBad, setBad] = useState(false);
  const [failure, setFailure] = useState<unknown>(null);
  const { data } = ways;
  const provider = data?.oidc;
  const start = async () => {
    if (!provider) return;
    try {
      const here = window.location.pathname + window.location.search;
      window.location.assign(await begin(provider, window.location.origin, here, sessionStorage));
    } catch (error) {
      setFailure(error);
    }
  };
  return (
    <>
      {ways.error && <ProblemNote error={ways.error} />}
      {failure !== null && <ProblemNote error={failure} />}
      {provider && (
        <button type="button" className="primary" onClick={() => void start()}>
          {s.signIn.withProvider}
        </button>
      )}
      {data?.token && (
        <form
          onSubmit={(event) => {
            event.preventDefault();
            setBad(!session.signIn(token));
          }}
        >
          <label>
            {s.signIn.withToken}
            <input
              type="password"
              autoComplete="off"
              value={token}
              onChange={(event) => setToken(event.target.value)}
              aria-invalid={isBad}
              aria-describedby="token-hint"
            />
          </label>
          <p id="token-hint" className="hint">
            {isBad ? <span role="alert">{s.signIn.notAToken}</span> : s.signIn.tokenHint}
          </p>
          <button type="submit" className={provider ? "" : "primary"}>
            {s.signIn.submit}
          </button>
        </form>
      )}
      {data && !provider && !data.token && <p className="note">{s.signIn.notConfigured}</p>}
    </>
  );
}

/** Where the identity provider sends the browser back to. */
export function Callback({ onDone }: { onDone: (returnTo: string) => void }) {
  const ways = useQuery(config);
  const [failure, setFailure] = useState<string | null>(null);
  const provider = ways.data?.oidc;
  useEffect(() => {
    if (!provider) return;
    const address = new URL(window.location.href);
    if (!address.searchParams.has("state")) return;
    // The code leaves the address before anything else can see it.
    window.history.replaceState(null, "", address.pathname);
    finish(provider, address, sessionStorage, session).then(onDone, (error: unknown) => {
      const isState = error instanceof SignInFailed && error.kind === "wrong-state";
      setFailure(isState ? s.signIn.wrongState : `${s.signIn.failed}. ${error instanceof Error ? error.message : ""}`);
    });
  }, [provider, onDone]);
  return (
    <main className="sign-in" id="content">
      <h1>{s.pages.signIn}</h1>
      {ways.error && <ProblemNote error={ways.error} />}
      {failure === null ? (
        <p role="status">{s.signIn.waiting}</p>
      ) : (
        <>
          <p className="note problem" role="alert">{failure}</p>
          <a href="/">{s.signIn.again}</a>
        </>
      )}
    </main>
  );
}
