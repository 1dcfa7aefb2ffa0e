import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";

import { Connection, GRACE_MS, type Status } from "./connection";
import type { Frame } from "./messages";

class FakeSocket {
  sent: string[] = [];
  isClosed = false;
  onopen: (() => void) | null = null;
  onmessage: ((event: { data: unknown }) => void) | null = null;
  onclose: ((event: { code: number }) => void) | null = null;
  constructor(readonly protocols: string[]) {}
  send(text: string) {
    this.sent.push(text);
  }
  close() {
    this.isClosed = true;
  }
  say(body: object) {
    this.onmessage?.({ data: JSON.stringify({ v: 1, ...body }) });
  }
}

describe("the live connection", () => {
  let sockets: FakeSocket[];
  let frames: Frame[];
  let statuses: Status[];
  let token: string | null;
  let refused: number;
  let connection: Connection;
  const last = () => sockets.at(-1) as FakeSocket;
  const hello = (position: string) =>
    last().say({ type: "hello", server_time: "2026-03-02T00:00:00Z", heartbeat_seconds: 2, position });

  beforeEach(() => {
    vi.useFakeTimers();
    [sockets, frames, statuses, token, refused] = [[], [], [], "t", 0];
    connection = new Connection({
      open: (protocols) => {
        const made = new FakeSocket(protocols);
        sockets.push(made);
        return made as unknown as WebSocket;
      },
      token: () => token,
      onFrame: (frame) => frames.push(frame),
      onStatus: (status) => statuses.push(status),
      onUnauthorised: () => (refused += 1),
      random: () => 0.5,
    });
  });
  afterEach(() => void vi.useRealTimers());

  const start = () => {
    connection.watch({ machineIds: ["a"], kinds: ["readings"] });
    last().onopen?.();
    hello("1-e");
  };

  it("sends the token as a subprotocol, never in the address", () => {
    start();
    expect(last().protocols).toEqual(["aegis.telemetry.v1", "bearer.t"]);
    expect(JSON.parse(last().sent[0] ?? "")).toEqual({ machine_ids: ["a"], kinds: ["readings"], since: null });
    expect(connection.status).toBe("live");
  });

  it("resumes behind the last position it was sent", () => {
    start();
    last().say({ type: "readings", position: "7-e", machines: [] });
    last().onclose?.({ code: 1006 });
    expect(connection.status).toBe("lost");
    vi.advanceTimersByTime(1_000);
    last().onopen?.();
    expect(JSON.parse(last().sent[0] ?? "")["since"]).toBe("7-e");
  });

  it("keeps its own position while the server's hello names a later one", () => {
    start();
    last().say({ type: "readings", position: "7-e", machines: [] });
    last().onclose?.({ code: 1006 });
    vi.advanceTimersByTime(1_000);
    hello("99-e");
    last().onclose?.({ code: 1006 });
    vi.advanceTimersByTime(1_000);
    last().onopen?.();
    expect(JSON.parse(last().sent[0] ?? "")["since"]).toBe("7-e");
  });

  it("says within 5 s that a silent connection is lost", () => {
    start();
    vi.advanceTimersByTime(2_000 + GRACE_MS - 1);
    expect(connection.status).toBe("live");
    vi.advanceTimersByTime(1);
    expect(connection.status).toBe("lost");
    expect(2_000 + GRACE_MS).toBeLessThanOrEqual(5_000);
  });

  it("takes any frame as a sign of life and counts malformed ones", () => {
    start();
    for (let i = 0; i < 5; i++) {
      vi.advanceTimersByTime(3_000);
      last().onmessage?.({ data: "{nonsense" });
    }
    expect(connection.malformed).toBe(5);
    expect(connection.status).toBe("live");
  });

  it("waits longer after each failure, but never long", () => {
    connection.watch({ machineIds: null, kinds: [] });
    const waits: number[] = [];
    for (let i = 0; i < 8; i++) {
      const before = sockets.length;
      last().onclose?.({ code: 1006 });
      let waited = 0;
      while (sockets.length === before) {
        vi.advanceTimersByTime(50);
        waited += 50;
      }
      waits.push(waited);
    }
    expect(waits[0]).toBeLessThanOrEqual(250);
    expect(Math.max(...waits)).toBeLessThanOrEqual(5_000);
    expect(waits).toEqual([...waits].sort((a, b) => a - b));
  });

  it("closes in the background and resumes when it is seen again", () => {
    start();
    last().say({ type: "readings", position: "3-e", machines: [] });
    connection.visible(false);
    expect(last().isClosed).toBe(true);
    vi.advanceTimersByTime(600_000);
    expect(sockets).toHaveLength(1);
    connection.visible(true);
    last().onopen?.();
    expect(JSON.parse(last().sent[0] ?? "")["since"]).toBe("3-e");
  });

  it("ignores what an old socket still says", () => {
    start();
    const old = last();
    const handler = old.onmessage;
    connection.watch({ machineIds: ["b"], kinds: ["readings"] });
    handler?.({ data: JSON.stringify({ v: 1, type: "readings", position: "9-e", machines: [] }) });
    expect(frames.filter((f) => f.type === "readings")).toHaveLength(0);
  });

  it("stops when the token is refused and starts with the next one", () => {
    start();
    last().say({ type: "closed", reason: "token-expired" });
    expect([connection.status, refused]).toEqual(["refused", 1]);
    vi.advanceTimersByTime(60_000);
    expect(sockets).toHaveLength(1);
    token = "u";
    connection.restart();
    expect(last().protocols[1]).toBe("bearer.u");
  });

  it("says that values stand still while the server's own source is away", () => {
    start();
    last().say({ type: "heartbeat", server_time: "2026-03-02T00:00:02Z", position: null, is_live: false });
    expect(connection.status).toBe("stalled");
    last().say({ type: "heartbeat", server_time: "2026-03-02T00:00:04Z", position: "4-e", is_live: true });
    expect(connection.status).toBe("live");
  });
});
