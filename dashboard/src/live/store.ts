/**
 * The newest of everything that came live, outside React, so that 800 values a second do not
 * render 200 components. Listeners are called once per animation frame at most, per machine.
 */
import type { Frame, LivePrediction } from "./messages";

export interface LiveValue {
  /** µs on the machine's clock. */
  ts: number;
  value: number;
  quality: number;
}

export interface LiveMachine {
  channels: Map<string, LiveValue>;
  features: Map<string, number | null>;
  /** µs. */
  featuresAt: number | null;
  coverage: number | null;
  prediction: LivePrediction | null;
}

type Listener = (machine: LiveMachine) => void;

export class LiveStore {
  private machines = new Map<string, LiveMachine>();
  private listeners = new Map<string, Set<Listener>>();
  private changed = new Set<string>();
  private isScheduled = false;
  readings = 0;

  constructor(private readonly schedule: (run: () => void) => void) {}

  get(machineId: string): LiveMachine | undefined {
    return this.machines.get(machineId);
  }

  apply(frame: Frame): void {
    switch (frame.type) {
      case "readings":
        for (const { machine_id, readings } of frame.machines) {
          const machine = this.machine(machine_id);
          for (const [channel, ts, value, quality] of readings) {
            this.readings += 1;
            const known = machine.channels.get(channel);
            if (!known) machine.channels.set(channel, { ts, value, quality });
            else if (ts >= known.ts) {
              known.ts = ts;
              known.value = value;
              known.quality = quality;
            }
          }
          this.touch(machine_id);
        }
        break;
      case "features":
        for (const row of frame.machines) {
          const machine = this.machine(row.machine_id);
          machine.featuresAt = row.ts;
          machine.coverage = row.coverage;
          for (const [name, value] of Object.entries(row.features)) machine.features.set(name, value);
          this.touch(row.machine_id);
        }
        break;
      case "predictions":
        for (const row of frame.machines) {
          this.machine(row.machine_id).prediction = row;
          this.touch(row.machine_id);
        }
        break;
    }
  }

  subscribe(machineId: string, listener: Listener): () => void {
    const known = this.listeners.get(machineId);
    if (known) known.add(listener);
    else this.listeners.set(machineId, new Set([listener]));
    return () => {
      const set = this.listeners.get(machineId);
      set?.delete(listener);
      if (set?.size === 0) this.listeners.delete(machineId);
    };
  }

  /** Forget machines nobody watches any more, so that memory follows what is on the screen. */
  keep(machineIds: readonly string[] | null): void {
    if (machineIds === null) return;
    const wanted = new Set(machineIds);
    for (const id of this.machines.keys()) if (!wanted.has(id)) this.machines.delete(id);
  }

  private machine(id: string): LiveMachine {
    let machine = this.machines.get(id);
    if (!machine) {
      machine = {
        channels: new Map(),
        features: new Map(),
        featuresAt: null,
        coverage: null,
        prediction: null,
      };
      this.machines.set(id, machine);
    }
    return machine;
  }

  private touch(machineId: string): void {
    if (!this.listeners.has(machineId)) return;
    this.changed.add(machineId);
    if (this.isScheduled) return;
    this.isScheduled = true;
    this.schedule(() => this.flush());
  }

  private flush(): void {
    this.isScheduled = false;
    const changed = [...this.changed];
    this.changed.clear();
    for (const id of changed) {
      const machine = this.machines.get(id);
      if (machine) for (const listener of this.listeners.get(id) ?? []) listener(machine);
    }
  }
}
