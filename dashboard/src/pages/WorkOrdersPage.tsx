/** Work orders drafted from alarms and predictions; what came of them goes to the labels. */
import { useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import { Link } from "@tanstack/react-router";
import { useRef } from "react";

import { closeWorkOrder, download, workOrders } from "../api/queries";
import type { WorkOrder } from "../api/types";
import { OUTCOMES, type Outcome } from "../api/vocabulary";
import { session } from "../auth/session";
import { useLive } from "../live/live";
import { s } from "../strings";
import { moment } from "../time/format";
import { Loaded } from "../ui/Loaded";
import { Menu } from "../ui/Menu";
import { PriorityMark } from "../ui/marks";
import { notify, notifyFailure } from "../ui/notices";
import type { Priority } from "../api/types";

const NO_MACHINES: readonly string[] = [];

export function WorkOrdersPage() {
  useLive(NO_MACHINES);
  const query = useQuery(workOrders());
  return (
    <div className="page">
      <div className="page-head">
        <h1>{s.work.title}</h1>
      </div>
      <Loaded query={query}>{(data) => <WorkOrderTable orders={data.work_orders} />}</Loaded>
    </div>
  );
}

export function WorkOrderTable({ orders }: { orders: readonly WorkOrder[] }) {
  const c = s.work.columns;
  if (orders.length === 0) return <p className="quiet-text">{s.work.empty}</p>;
  return (
    <div className="panel scroll" tabIndex={0}>
      <table className="rows">
        <thead>
          <tr>
            <th scope="col">{c.id}</th>
            <th scope="col">{s.priority.label}</th>
            <th scope="col">{c.machine}</th>
            <th scope="col">{c.title}</th>
            <th scope="col">{c.state}</th>
            <th scope="col">{c.created}</th>
            <th scope="col">{c.outcome}</th>
            <th scope="col">{s.work.webhook}</th>
            <th scope="col">{s.work.export}</th>
          </tr>
        </thead>
        <tbody>
          {orders.map((order) => (
            <Row key={order.work_order_id} order={order} />
          ))}
        </tbody>
      </table>
    </div>
  );
}

function Row({ order }: { order: WorkOrder }) {
  const client = useQueryClient();
  const key = useRef(crypto.randomUUID());
  const close = useMutation({
    mutationFn: (outcome: Outcome) => closeWorkOrder(order.work_order_id, outcome, null, key.current),
    onSuccess: (_, outcome) => {
      key.current = crypto.randomUUID();
      notify(s.outcome.sent(s.outcome[outcome], order.machine_id));
      void client.invalidateQueries({ refetchType: "active" });
    },
    onError: notifyFailure,
  });
  const may = session.atLeast("operator");
  const save = (format: "json" | "csv") =>
    void download(`/api/v1/work-orders/${encodeURIComponent(order.work_order_id)}?format=${format}`, `${order.work_order_id}.${format}`).catch(notifyFailure);
  return (
    <tr data-work-order={order.work_order_id}>
      <td className="digest">{order.work_order_id}</td>
      <td>
        <PriorityMark priority={order.priority as Priority} />
      </td>
      <td>
        <Link to="/machines/$machineId" params={{ machineId: order.machine_id }}>
          {order.machine_id}
        </Link>
      </td>
      <th scope="row">
        {order.title}
        <small>{order.procedure ? s.machine.procedure(order.procedure) : ""}</small>
      </th>
      <td>{s.work.states[order.state] ?? order.state}</td>
      <td className="nowrap">
        {moment(order.created_at)}
        <small className="under">{order.created_by}</small>
      </td>
      <td>
        {order.outcome ? (
          s.outcome[order.outcome]
        ) : (
          <Menu
            label={s.outcome.title(order.work_order_id)}
            disabled={!may || close.isPending}
            choices={OUTCOMES.map((outcome) => ({
              key: outcome,
              label: s.outcome[outcome],
              hint: s.outcome.hint[outcome],
              choose: () => close.mutate(outcome),
            }))}
          >
            {s.outcome.column}
          </Menu>
        )}
      </td>
      <td>{s.work.delivery[order.delivery.webhook] ?? order.delivery.webhook}</td>
      <td className="nowrap">
        <button type="button" onClick={() => save("json")}>{s.work.json}</button>{" "}
        <button type="button" onClick={() => save("csv")}>{s.work.csv}</button>
      </td>
    </tr>
  );
}
