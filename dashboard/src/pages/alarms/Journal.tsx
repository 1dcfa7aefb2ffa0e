/** Every transition of every alarm, newest first; append-only. */
import { useQuery } from "@tanstack/react-query";
import { Link } from "@tanstack/react-router";

import { alarmJournal } from "../../api/queries";
import { s } from "../../strings";
import { moment } from "../../time/format";
import { Loaded } from "../../ui/Loaded";
import { PriorityMark } from "../../ui/marks";
import type { Priority } from "../../api/types";

export function Journal() {
  const query = useQuery(alarmJournal());
  const c = s.alarms.journalColumns;
  return (
    <Loaded query={query}>
      {(data) =>
        data.records.length === 0 ? (
          <p className="quiet-text">{s.alarms.journalEmpty}</p>
        ) : (
          <div className="panel scroll" tabIndex={0}>
            <table className="rows">
              <thead>
                <tr>
                  <th scope="col">{c.at}</th>
                  <th scope="col">{c.event}</th>
                  <th scope="col">{c.machine}</th>
                  <th scope="col">{c.alarm}</th>
                  <th scope="col">{c.who}</th>
                  <th scope="col">{c.detail}</th>
                </tr>
              </thead>
              <tbody>
                {data.records.map((row) => (
                  <tr key={row.journal_id}>
                    <td className="nowrap">{moment(row.changed_at)}</td>
                    <td>{row.transition.replaceAll("_", " ")}</td>
                    <td>
                      {row.machine_id && (
                        <Link to="/machines/$machineId" params={{ machineId: row.machine_id }}>
                          {row.machine_id}
                        </Link>
                      )}
                    </td>
                    <td>
                      <PriorityMark priority={row.priority as Priority} /> {row.definition_id}
                    </td>
                    <td>{row.subject}</td>
                    <td>{row.comment}</td>
                  </tr>
                ))}
              </tbody>
            </table>
          </div>
        )
      }
    </Loaded>
  );
}
