// Which metrics share a chart: those of one unit, the most asked for first. Pure.

import { metricTitle } from "./format.js";

/** Most lines that can be told apart in one chart. */
const LINES = 6;
const UNITS = ["%", "°C", "W", "MiB", "MHz"];
const TITLES = { "%": "Utilisation", "°C": "Temperature", W: "Power", MiB: "Memory", MHz: "Clocks" };
/** Within a chart: what people ask for first. */
const FIRST = [
  "DCGM_FI_DEV_GPU_UTIL",
  "DCGM_FI_DEV_GPU_TEMP",
  "DCGM_FI_DEV_POWER_USAGE",
  "DCGM_FI_DEV_FB_USED",
  "DCGM_FI_DEV_SM_CLOCK",
];

/**
 * Give the charts of some metrics: `{title, unit, metrics, lines}`.
 *
 * @param {string[]} names of the metrics there are
 * @param {Map<string, {unit: string, help: string}>} known what is known of them
 */
export function chartsOf(names, known) {
  const byUnit = new Map();
  for (const name of [...names].sort(byFirst)) {
    const unit = known.get(name)?.unit ?? "";
    // What has no unit has a scale of its own: error numbers beside shares would say nothing.
    const key = unit === "" ? name : unit;
    byUnit.set(key, [...(byUnit.get(key) ?? []), name]);
  }
  return [...byUnit]
    .sort(([one], [other]) => rank(one) - rank(other) || one.localeCompare(other))
    .flatMap(([key, metrics]) => {
      const unit = key === metrics[0] ? "" : key;
      return parts(metrics).map((some) => ({
        title: unit === "" || !TITLES[unit] ? metricTitle(some[0]) : TITLES[unit],
        unit,
        metrics: some,
        lines: some.map((name) => ({ title: metricTitle(name), help: known.get(name)?.help })),
      }));
    });
}

function byFirst(one, other) {
  const [a, b] = [FIRST.indexOf(one), FIRST.indexOf(other)];
  if (a >= 0 || b >= 0) return (a < 0 ? FIRST.length : a) - (b < 0 ? FIRST.length : b);
  return one.localeCompare(other);
}

function rank(unit) {
  const place = UNITS.indexOf(unit);
  return place < 0 ? UNITS.length : place;
}

function parts(metrics) {
  const count = Math.ceil(metrics.length / LINES);
  const size = Math.ceil(metrics.length / count);
  return Array.from({ length: count }, (_, at) => metrics.slice(at * size, (at + 1) * size));
}
