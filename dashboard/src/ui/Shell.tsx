/** What every page has: pages, connection, alarm banner, who is signed in. */
import { Link, Outlet } from "@tanstack/react-router";
import { useEffect, useRef, useState, useSyncExternalStore } from "react";

import { session } from "../auth/session";
import { SignInAgain } from "../auth/SignIn";
import { connection, useConnectionStatus } from "../live/live";
import { s } from "../strings";
import { SKEW_SHOWN_MS, clock, ticker } from "../time/clock";
import { chooseZone, currentZone, dayOf, duration, subscribeZone, timeOfDay, zoneName } from "../time/format";
import { AlarmBanner } from "./AlarmBanner";
import { Notices } from "./notices";
import { useSession } from "./session";

const PAGES = [
  ["/", s.pages.fleet],
  ["/alarms", s.pages.alarms],
  ["/advisories", s.pages.advisories],
  ["/work-orders", s.pages.workOrders],
  ["/handover", s.pages.handover],
  ["/kpi", s.pages.kpi],
  ["/models", s.pages.models],
  ["/system", s.pages.system],
] as const;

export function Shell() {
  const zone = useSyncExternalStore(subscribeZone, currentZone);
  const state = useSession();
  return (
    <div className="shell">
      <a className="skip" href="#content" onClick={skipToContent}>
        {s.skip}
      </a>
      <header className="top">
        <Link to="/" className="brand">
          <img src="/icon.svg" alt="" width="22" height="22" />
          <strong>{s.product}</strong>
        </Link>
        <nav aria-label={s.pages.nav}>
          {PAGES.map(([to, name]) => (
            <Link key={to} to={to} activeOptions={{ exact: to === "/" }} activeProps={{ "aria-current": "page" }}>
              {name}
            </Link>
          ))}
        </nav>
        <ConnectionState />
        <WallClock />
        <User />
      </header>
      <AlarmBanner />
      <ConnectionNote />
      <main id="content" tabIndex={-1} key={zone}>
        <Outlet />
      </main>
      <Notices />
      {state === "expired" && <SignInAgain />}
    </div>
  );
}

function skipToContent(event: React.MouseEvent): void {
  event.preventDefault();
  document.getElementById("content")?.focus();
}

const SIGNS = { live: "●", connecting: "◌", idle: "○", stalled: "◐", lost: "✕", refused: "✕" } as const;

function ConnectionState() {
  const status = useConnectionStatus();
  return (
    <span className={`connection ${status}`} role="status" aria-label={`${s.live.label}: ${s.live[status]}`}>
      <span aria-hidden="true">{SIGNS[status]}</span> {s.live[status]}
    </span>
  );
}

function ConnectionNote() {
  const status = useConnectionStatus();
  const skew = useSyncExternalStore(clock.subscribe, () =>
    clock.skew === null || Math.abs(clock.skew) < SKEW_SHOWN_MS ? 0 : Math.round(clock.skew / 1_000),
  );
  const isAway = status === "lost";
  return (
    <>
      {isAway && <LostNote />}
      {status === "stalled" && <p className="note connection-note" role="alert">{s.live.stalledDetail}</p>}
      {skew !== 0 && <p className="note" role="status">{s.live.skew(skew)}</p>}
    </>
  );
}

function LostNote() {
  const since = useRef(connection.heardAt ?? Date.now());
  const ref = useRef<HTMLParagraphElement>(null);
  useEffect(() => {
    const show = () => {
      if (ref.current) ref.current.textContent = s.live.lostFor(duration((Date.now() - since.current) / 1_000));
    };
    show();
    return ticker.subscribe(show);
  }, []);
  // The text counts up; a reader is told once, by the connection state beside the pages.
  return <p className="note connection-note" ref={ref} />;
}

function WallClock() {
  const ref = useRef<HTMLTimeElement>(null);
  const zone = useSyncExternalStore(subscribeZone, currentZone);
  useEffect(() => {
    const show = () => {
      const now = clock.now();
      if (ref.current) ref.current.textContent = `${dayOf(now)} ${timeOfDay(now)}`;
    };
    show();
    return ticker.subscribe(show);
  }, [zone]);
  return (
    <span className="clock">
      <time ref={ref} />
      <button
        type="button"
        className="quiet"
        title={`${s.zone.label} ${zone === "utc" ? s.zone.utc : s.zone.local}`}
        aria-label={`${s.zone.label} ${zone === "utc" ? s.zone.utc : `${s.zone.local}: ${zoneName()}`}`}
        onClick={() => chooseZone(zone === "utc" ? "local" : "utc")}
      >
        {zoneName()}
      </button>
    </span>
  );
}

function User() {
  const [isOpen, setOpen] = useState(false);
  const identity = session.identity();
  if (!identity) return null;
  return (
    <span className="user">
      <button type="button" className="quiet" aria-expanded={isOpen} onClick={() => setOpen(!isOpen)}>
        {s.signIn.signedInAs(identity.subject, identity.role)}
      </button>
      {isOpen && (
        <button type="button" className="user-out" onClick={() => session.signOut()}>
          {s.signIn.signOut}
        </button>
      )}
    </span>
  );
}
