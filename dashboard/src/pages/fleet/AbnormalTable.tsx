/** What is abnormal, how bad, since when, and whose. */
import { Link } from "@tanstack/react-router";

import type { MachineRow } from "../../api/types";
import { s } from "../../strings";
import { number } from "../../time/format";
import { Age } from "../../ui/Age";
import { PredictedRisk } from "../../ui/PredictedRisk";
import { DataMark, PriorityMark } from "../../ui/marks";
import { since, what, worst } from "./abnormal";

export function AbnormalTable({ machines }: { machines: readonly MachineRow[] }) {
  const c = s.fleet.columns;
  if (machines.length === 0) return <p className="quiet-text">{s.fleet.nothing}</p>;
  return (
    <table className="rows abnormal">
      <thead>
        <tr>
          <th scope="col">{c.whose}</th>
          <th scope="col">{c.what}</th>
          <th scope="col">{c.since}</th>
          <th scope="col">{c.risk}</th>
          <th scope="col">{c.data}</th>
        </tr>
      </thead>
      <tbody>
        {machines.map((machine) => (
          <Row key={machine.machine_id} machine={machine} />
        ))}
      </tbody>
    </table>
  );
}

function Row({ machine }: { machine: MachineRow }) {
  const furthest = worst(machine);
  return (
    <tr>
      <th scope="row">
        <Link to="/machines/$machineId" params={{ machineId: machine.machine_id }}>
          {machine.machine_id}
        </Link>
        <small>
          {machine.area} · {machine.owner ?? s.fleet.unassigned}
        </small>
      </th>
      <td className="abnormal-what">
        {machine.alarms.top && <PriorityMark priority={machine.alarms.top.priority} />} {what(machine)}
        {furthest && furthest.level > 0 && (
          <small className="furthest" data-level={furthest.level}>
            {furthest.indicator.title} <b>{number(furthest.indicator.value)}</b> <span className="unit">{furthest.indicator.unit}</span>
          </small>
        )}
      </td>
      <td>
        <Age at={since(machine)} />
      </td>
      <td>
        <PredictedRisk row={machine} />
      </td>
      <td>
        <DataMark status={machine.data_quality.status} />
        <small className="under"><Age at={machine.features_at} /></small>
      </td>
    </tr>
  );
}
