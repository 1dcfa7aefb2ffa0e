/** What the machine class says to do about a failure mode. */
import { useQuery } from "@tanstack/react-query";

import { machineClasses } from "../../api/queries";
import type { FleetMachine } from "../../api/types";

export interface Recommended {
  text: string;
  procedure: string | null;
}

export function useActions(row: FleetMachine): Recommended | null {
  const classes = useQuery(machineClasses()).data?.classes;
  const mode = classes
    ?.find((c) => c.name === row.machine_class)
    ?.failure_modes.find((m) => m.code === row.failure_mode?.code);
  return mode ? { text: mode.action, procedure: mode.procedure } : null;
}
