/** The master alarm database: without an entry here there is no alarm. */
import { useQuery } from "@tanstack/react-query";

import { alarmDefinitions } from "../../api/queries";
import type { Priority } from "../../api/types";
import { s } from "../../strings";
import { duration, withUnit } from "../../time/format";
import { Loaded } from "../../ui/Loaded";
import { PriorityMark } from "../../ui/marks";

export function MasterList() {
  const query = useQuery(alarmDefinitions());
  const c = s.alarms.masterColumns;
  return (
    <Loaded query={query}>
      {(data) => (
        <div className="panel scroll" tabIndex={0}>
          <table className="rows master">
            <thead>
              <tr>
                <th scope="col">{c.alarm}</th>
                <th scope="col">{c.priority}</th>
                <th scope="col">{c.setpoint}</th>
                <th scope="col">{c.deadband}</th>
                <th scope="col">{c.delays}</th>
                <th scope="col">{c.respond}</th>
                <th scope="col">{c.cause}</th>
                <th scope="col">{c.consequence}</th>
                <th scope="col">{c.response}</th>
                <th scope="col">{c.owner}</th>
                <th scope="col">{c.revision}</th>
              </tr>
            </thead>
            <tbody>
              {data.map((row) => (
                <tr key={`${row.machine_class}/${row.id}`}>
                  <th scope="row">
                    {row.title}
                    <small>
                      {row.machine_class || s.product} · {row.kind}
                    </small>
                  </th>
                  <td>
                    <PriorityMark priority={row.priority as Priority} withText />
                  </td>
                  <td className="nowrap">{withUnit(row.setpoint, row.unit === "1" ? "" : row.unit)}</td>
                  <td>{withUnit(row.deadband, "")}</td>
                  <td className="nowrap">
                    {duration(row.on_delay_s)} / {duration(row.off_delay_s)}
                  </td>
                  <td className="nowrap">{duration(row.time_to_respond_s)}</td>
                  <td>{row.cause}</td>
                  <td>{row.consequence}</td>
                  <td>
                    {row.response} {row.procedure && <small className="under">{row.procedure}</small>}
                  </td>
                  <td>{row.owner}</td>
                  <td>{row.revision}</td>
                </tr>
              ))}
            </tbody>
          </table>
        </div>
      )}
    </Loaded>
  );
}
