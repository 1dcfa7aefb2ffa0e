/** How old something is, kept current without rendering anything else. */
import { useEffect, useRef } from "react";

import { s } from "../strings";
import { clock, ticker } from "../time/clock";
import { age, moment } from "../time/format";

export function Age({ at, staleAfter }: { at: string | null | undefined; staleAfter?: number }) {
  const ref = useRef<HTMLTimeElement>(null);
  useEffect(() => {
    const show = () => {
      const element = ref.current;
      if (!element) return;
      const text = age(at, clock.now());
      if (element.textContent !== text) element.textContent = text;
      const isStale = staleAfter !== undefined && at != null && clock.now() - Date.parse(at) > staleAfter * 1_000;
      element.classList.toggle("stale", isStale);
    };
    show();
    return ticker.subscribe(show);
  }, [at, staleAfter]);
  return (
    <time ref={ref} className="age" dateTime={at ?? undefined} title={at ? moment(at) : s.quality.no_data}>
      {age(at, clock.now())}
    </time>
  );
}
