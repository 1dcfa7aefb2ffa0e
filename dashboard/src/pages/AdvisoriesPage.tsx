/** Predictions that ask for planning: their own list, never among the alarms. */
import { useQuery } from "@tanstack/react-query";

import { advisories } from "../api/queries";
import { useLive } from "../live/live";
import { s } from "../strings";
import { Loaded } from "../ui/Loaded";
import { AlarmTable } from "./alarms/AlarmTable";
import { byUrgency, stands } from "./alarms/order";

const NO_MACHINES: readonly string[] = [];

export function AdvisoriesPage() {
  useLive(NO_MACHINES);
  const query = useQuery(advisories());
  return (
    <div className="page">
      <div className="page-head">
        <h1>{s.advisories.title}</h1>
        <p className="quiet-text">{s.advisories.intro}</p>
      </div>
      <Loaded query={query}>
        {(data) => {
          const rows = data.alarms.filter(stands).sort(byUrgency);
          return rows.length === 0 ? (
            <p className="quiet-text">{s.advisories.empty}</p>
          ) : (
            <div className="panel scroll advisories" tabIndex={0}>
              <AlarmTable alarms={rows} />
            </div>
          );
        }}
      </Loaded>
    </div>
  );
}
