/** The server's time, as well as this computer can know it, and one tick a second for the ages. */

/** Beyond this the page says that this computer's clock is off (ms). */
export const SKEW_SHOWN_MS = 2_000;
const SAMPLES = 8;

export class Clock {
  private samples: number[] = [];
  private listeners = new Set<() => void>();
  /** Server time minus this computer's, ms; null until the server said its time. */
  skew: number | null = null;

  constructor(private readonly local: () => number = Date.now) {}

  /** The server's now, ms since 1970. */
  now = (): number => this.local() + (this.skew ?? 0);

  /**
   * The server said it was `serverTime` (ms) just before we got this.
   *
   * A message can only be late, never early: the largest difference of the last few is nearest to
   * the truth.
   */
  observe(serverTime: number): void {
    if (!Number.isFinite(serverTime)) return;
    this.samples.push(serverTime - this.local());
    if (this.samples.length > SAMPLES) this.samples.shift();
    this.skew = Math.max(...this.samples);
    for (const listener of this.listeners) listener();
  }

  subscribe = (listener: () => void): (() => void) => {
    this.listeners.add(listener);
    return () => this.listeners.delete(listener);
  };
}

export const clock = new Clock();

/** Calls its listeners once a second while the page is visible; no listeners, no timer. */
export class Ticker {
  private listeners = new Set<() => void>();
  private timer: ReturnType<typeof setInterval> | null = null;

  constructor(private readonly page: Pick<Document, "visibilityState" | "addEventListener">) {
    page.addEventListener("visibilitychange", () => this.review(true));
  }

  subscribe = (listener: () => void): (() => void) => {
    this.listeners.add(listener);
    this.review(false);
    return () => {
      this.listeners.delete(listener);
      this.review(false);
    };
  };

  private review(changed: boolean): void {
    const wanted = this.listeners.size > 0 && this.page.visibilityState === "visible";
    if (wanted && this.timer === null) {
      this.timer = setInterval(this.tick, 1_000);
      if (changed) this.tick();
    } else if (!wanted && this.timer !== null) {
      clearInterval(this.timer);
      this.timer = null;
    }
  }

  private tick = (): void => {
    for (const listener of this.listeners) listener();
  };
}

export const ticker = new Ticker(document);
