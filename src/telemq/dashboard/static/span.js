// Which time a page shows, and in what steps. Pure: "now" is an argument, times are milliseconds.

/** The spans that a page offers, by the word in its URL. */
export const SPANS = {
  "5m": { title: "5 min", seconds: 300 },
  "1h": { title: "1 h", seconds: 3600 },
  "6h": { title: "6 h", seconds: 6 * 3600 },
  "24h": { title: "24 h", seconds: 86_400 },
  "7d": { title: "7 d", seconds: 7 * 86_400 },
  "30d": { title: "30 d", seconds: 30 * 86_400 },
};

/** Steps that people can reckon with, in seconds. */
const STEPS = [
  1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10_800, 21_600, 43_200, 86_400,
];
/** Pixels from one point of a line to the next: closer ones cannot be told apart. */
const PIXELS = 3;
/** What brushing may zoom into, at least: shorter is a slip of the hand. */
const SHORTEST_MS = 1000;

/** Give the step, in seconds, with which a line over `seconds` fits a chart so many pixels wide. */
export function stepFor(seconds, width) {
  const least = seconds / Math.max(1, Math.floor(width / PIXELS));
  return STEPS.find((step) => step >= least) ?? STEPS.at(-1);
}

/**
 * Read what time a URL asks for: `from` and `to` (RFC 3339) if both are there and in order, else
 * `span`, else `usual`.
 *
 * @returns {{span: string|null, from: number, to: number}} span is null for fixed bounds
 */
export function readSpan(params, now, usual = "1h") {
  const from = Date.parse(params.get("from") ?? "");
  const to = Date.parse(params.get("to") ?? "");
  if (from < to) return { span: null, from, to };
  const named = params.get("span") ?? "";
  const span = Object.hasOwn(SPANS, named) ? named : usual;
  return { span, from: now - SPANS[span].seconds * 1000, to: now };
}

/** Give the bounds that a brush from one moment to another selects; null for a slip of the hand. */
export function brushed(one, other) {
  const from = Math.floor(Math.min(one, other));
  const to = Math.ceil(Math.max(one, other));
  return to - from >= SHORTEST_MS ? { from, to } : null;
}

/** Give a moment as RFC 3339 in UTC, without empty fractions. */
export function rfc3339(time) {
  return new Date(time).toISOString().replace(".000Z", "Z");
}

/** Give how often, in ms, a view of so many seconds is worth asking for anew. */
export function refreshMs(seconds) {
  return Math.min(60_000, Math.max(3000, (seconds * 1000) / 200));
}

/**
 * Give after how many seconds without a value a line is broken: three times the usual distance of
 * two records of a metric, since a metric may come less often than in every step.
 */
export function gapOf(records, step) {
  const last = new Map();
  const distances = [];
  for (const { metric_name: name, timestamp } of records) {
    const time = Date.parse(timestamp) / 1000;
    if (last.has(name) && time > last.get(name)) distances.push(time - last.get(name));
    last.set(name, time);
  }
  distances.sort((one, other) => one - other);
  return 3 * Math.max(step, distances[distances.length >> 1] ?? 0);
}

/**
 * Put records of several metrics on one axis of time, as a chart wants them.
 *
 * @param {{timestamp: string, metric_name: string, value: number}[]} records in any order
 * @param {string[]} metrics which, in the order of the lines
 * @param {number} gap seconds after which a line is broken instead of drawn on
 * @returns {(number|null|undefined)[][]} seconds since 1970, then a row of values each metric;
 *   undefined is drawn over, null breaks the line
 */
export function align(records, metrics, gap) {
  const rows = new Map(metrics.map((name) => [name, new Map()]));
  const times = new Set();
  for (const record of records) {
    const row = rows.get(record.metric_name);
    if (!row) continue;
    const time = Date.parse(record.timestamp) / 1000;
    times.add(time);
    row.set(time, record.value);
  }
  const axis = [...times].sort((one, other) => one - other);
  for (let at = axis.length - 1; at > 0; at--) {
    if (axis[at] - axis[at - 1] > gap) axis.splice(at, 0, axis[at - 1] + gap);
  }
  const filled = metrics.map((name) => {
    const row = rows.get(name);
    let last = -Infinity;
    return axis.map((time) => {
      if (row.has(time)) {
        last = time;
        return row.get(time);
      }
      return time - last >= gap ? null : undefined;
    });
  });
  return [axis, ...filled];
}
