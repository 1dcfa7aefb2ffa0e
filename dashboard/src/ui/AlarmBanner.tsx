/** The alarms that need somebody, on every page, always in the same place and of the same height. */
import { useQuery } from "@tanstack/react-query";
import { Link } from "@tanstack/react-router";

import { alarms } from "../api/queries";
import type { Alarm, Priority } from "../api/types";
import { s } from "../strings";
import { needsAcknowledging, byUrgency, stands } from "../pages/alarms/order";
import { Age } from "./Age";
import { PriorityMark } from "./marks";

const SHOWN = 3;
const PRIORITIES: readonly Priority[] = [1, 2, 3, 4];

export function AlarmBanner() {
  const { data, isError } = useQuery(alarms());
  const all = (data?.alarms ?? []).filter((a) => a.kind === "alarm");
  const standing = all.filter(stands);
  const waiting = standing.filter(needsAcknowledging).sort(byUrgency);
  const flood = data?.flood;
  return (
    <section className="banner" aria-label={s.banner.label}>
      <div className="banner-counts">
        {PRIORITIES.map((priority) => (
          <span key={priority} className="banner-count" data-none={!standing.some((a) => a.priority === priority)}>
            <PriorityMark priority={priority} />
            {standing.filter((a) => a.priority === priority).length}
          </span>
        ))}
        <Link to="/alarms" className="banner-summary">
          {data === undefined && isError
            ? s.banner.notLoaded
            : waiting.length === 0
              ? s.banner.standing(standing.length)
              : s.banner.unacknowledged(waiting.length)}
        </Link>
      </div>
      {flood?.active ? (
        <Link to="/alarms" className="banner-flood">
          <strong>{s.banner.flood(flood.groups.reduce((n, g) => n + g.count, 0), flood.groups.length)}</strong>
        </Link>
      ) : null}
      <ol className="banner-list" aria-live="polite" aria-relevant="additions">
        {waiting.length === 0 && <li className="banner-quiet">{data ? s.banner.quiet : ""}</li>}
        {waiting.slice(0, SHOWN).map((alarm) => (
          <li key={alarm.alarm_id}>
            <BannerAlarm alarm={alarm} />
          </li>
        ))}
      </ol>
      {waiting.length > SHOWN && (
        <Link to="/alarms" className="banner-more">
          {s.banner.more(waiting.length - SHOWN)}
        </Link>
      )}
    </section>
  );
}

function BannerAlarm({ alarm }: { alarm: Alarm }) {
  // An alarm of the product's own parts has no machine to go to.
  const target = alarm.machine_id
    ? ({ to: "/machines/$machineId", params: { machineId: alarm.machine_id } } as const)
    : ({ to: "/system" } as const);
  return (
    <Link {...target} className={`banner-alarm p${alarm.priority}`}>
      <PriorityMark priority={alarm.priority} />
      <b>{alarm.machine_id || s.product}</b>
      <span className="banner-cause">{alarm.title}</span>
      <Age at={alarm.raised_at} />
    </Link>
  );
}
