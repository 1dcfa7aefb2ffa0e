/** The recent course of a value, without axes; the bar beside it has the scale. */
import type { Limits, Scale } from "./scale";

const WIDTH = 96;
const HEIGHT = 20;

/** SVG path of the values; nulls are gaps. */
export function path(values: readonly (number | null)[], at: (value: number) => number): string {
  const step = WIDTH / Math.max(1, values.length - 1);
  let pen = "M";
  let d = "";
  values.forEach((value, i) => {
    if (value === null || !Number.isFinite(value)) {
      pen = "M";
      return;
    }
    d += `${pen}${(i * step).toFixed(1)} ${((1 - at(value)) * HEIGHT).toFixed(1)}`;
    pen = "L";
  });
  return d;
}

export function Sparkline({ values, scale, limits }: { values: readonly (number | null)[]; scale: Scale; limits: Limits }) {
  const { low, high } = limits;
  return (
    <svg className="sparkline" viewBox={`0 0 ${WIDTH} ${HEIGHT}`} preserveAspectRatio="none" aria-hidden="true">
      {low !== null && high !== null && (
        <rect className="band" x="0" width={WIDTH} y={(1 - scale.at(high)) * HEIGHT} height={(scale.at(high) - scale.at(low)) * HEIGHT} />
      )}
      <path d={path(values, scale.at)} />
    </svg>
  );
}
