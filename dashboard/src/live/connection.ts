/**
 * One WebSocket to the live telemetry that comes back by itself.
 *
 * It resumes behind the last position it was sent, so nothing is missed and nothing comes twice
 * (docs/telemetry.md). A connection that says nothing for longer than the server's heartbeat allows
 * is given up, whatever TCP thinks of it; a tab in the background has none at all.
 */
import { parse, type Frame } from "./messages";

export type Status = "idle" | "connecting" | "live" | "stalled" | "lost" | "refused";

export interface Interest {
  /** null = every machine the token may see. */
  machineIds: readonly string[] | null;
  kinds: readonly string[];
}

export interface Surroundings {
  open: (protocols: string[]) => WebSocket;
  token: () => string | null;
  onFrame: (frame: Frame) => void;
  onStatus: (status: Status) => void;
  onUnauthorised: () => void;
  random: () => number;
}

export const PROTOCOL = "aegis.telemetry.v1";
/** Silence, beyond the heartbeat's own interval, after which a connection counts as lost (ms). */
export const GRACE_MS = 2_000;
const FIRST_PAUSE_MS = 250;
const LONGEST_PAUSE_MS = 5_000;

export class Connection {
  private socket: WebSocket | null = null;
  private interest: Interest | null = null;
  private isVisible = true;
  private position: string | null = null;
  private heartbeatMs = 5_000;
  private failures = 0;
  private watchdog: ReturnType<typeof setTimeout> | null = null;
  private retry: ReturnType<typeof setTimeout> | null = null;
  private status_: Status = "idle";
  /** Frames that were none. */
  malformed = 0;
  /** This computer's time (ms) when the server was heard last. */
  heardAt: number | null = null;

  constructor(private readonly outside: Surroundings) {}

  get status(): Status {
    return this.status_;
  }

  /** What to receive from now on; null = nothing, no connection. */
  watch(interest: Interest | null): void {
    if (JSON.stringify(interest) === JSON.stringify(this.interest)) return;
    this.interest = interest;
    this.restart();
  }

  /** A page in the background receives nothing; when it comes back it resumes. */
  visible(isVisible: boolean): void {
    if (isVisible === this.isVisible) return;
    this.isVisible = isVisible;
    this.restart();
  }

  /** Connect anew, for example with a new token. */
  restart(): void {
    this.drop();
    this.failures = 0;
    if (this.interest && this.isVisible) this.connect();
    else this.become("idle");
  }

  private connect(): void {
    const token = this.outside.token();
    if (!token || !this.interest) return this.become("idle");
    if (this.status_ !== "lost") this.become("connecting");
    let socket: WebSocket;
    try {
      socket = this.outside.open([PROTOCOL, `bearer.${token}`]);
    } catch {
      return this.failed();
    }
    this.socket = socket;
    this.expectWithin(this.heartbeatMs + GRACE_MS);
    socket.onopen = () => {
      if (socket !== this.socket || !this.interest) return;
      socket.send(
        JSON.stringify({
          machine_ids: this.interest.machineIds,
          kinds: this.interest.kinds,
          since: this.position,
        }),
      );
    };
    socket.onmessage = (event) => {
      if (socket === this.socket) this.receive(event.data);
    };
    socket.onclose = (event) => {
      if (socket !== this.socket) return;
      this.socket = null;
      if (event.code === 4401) return this.unauthorised();
      this.failed();
    };
  }

  private receive(data: unknown): void {
    const frame = parse(data);
    this.heardAt = Date.now();
    this.expectWithin(this.heartbeatMs + GRACE_MS);
    if (!frame) {
      this.malformed += 1;
      return;
    }
    switch (frame.type) {
      case "hello":
        this.failures = 0;
        this.heartbeatMs = Math.max(500, frame.heartbeat * 1_000);
        this.expectWithin(this.heartbeatMs + GRACE_MS);
        this.become("live");
        // A client that resumes is told its own position until it has caught up.
        this.position ??= frame.position;
        break;
      case "heartbeat":
        this.become(frame.isLive ? "live" : "stalled");
        this.position = frame.position ?? this.position;
        break;
      case "readings":
        this.position = frame.position ?? this.position;
        break;
      case "gap":
        break;
      case "closed":
        if (frame.reason === "token-expired") return this.unauthorised();
        break;
      case "problem":
        if (frame.status === 401) return this.unauthorised();
        break;
    }
    this.outside.onFrame(frame);
  }

  private unauthorised(): void {
    this.drop();
    this.become("refused");
    this.outside.onUnauthorised();
  }

  private failed(): void {
    this.drop();
    this.become("lost");
    const longest = Math.min(LONGEST_PAUSE_MS, FIRST_PAUSE_MS * 2 ** this.failures);
    this.failures += 1;
    // Jitter: after an outage not every console comes back in the same moment.
    this.retry = setTimeout(() => this.connect(), longest * (0.5 + this.outside.random() / 2));
  }

  private expectWithin(milliseconds: number): void {
    if (this.watchdog !== null) clearTimeout(this.watchdog);
    this.watchdog = setTimeout(() => this.failed(), milliseconds);
  }

  private drop(): void {
    if (this.watchdog !== null) clearTimeout(this.watchdog);
    if (this.retry !== null) clearTimeout(this.retry);
    this.watchdog = this.retry = null;
    const socket = this.socket;
    this.socket = null;
    if (socket) {
      socket.onmessage = socket.onclose = socket.onopen = null;
      socket.close();
    }
  }

  private become(status: Status): void {
    if (status === this.status_) return;
    this.status_ = status;
    this.outside.onStatus(status);
  }
}
