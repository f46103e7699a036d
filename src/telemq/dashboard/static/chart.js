// A chart of lines over time: uPlot, with a legend of our own that says how far each line ranges.

import { DASHES, LINES } from "./colour.js";
import { make, say } from "./dom.js";
import { quantity, short, ticks } from "./format.js";
import { styled, theme } from "./shell.js";
import { brushByFinger } from "./touch.js";

const FONT = '12px Inter, system-ui, "Segoe UI", Roboto, sans-serif';

/** Units whose charts begin at zero; others show what there is. */
const FROM_ZERO = new Set(["%", "W", "MiB", "records", "records/s"]);

const FOLLOWED = new Set(["mousemove", "mouseleave"]);

/** Steps of an axis of MiB: round in GiB and TiB too. */
const POWERS = Array.from({ length: 40 }, (_, power) => 2 ** power);

/**
 * One chart in a figure; `element` is to be put into the page.
 *
 * @param {{title: string, unit: string, lines: {title: string, help?: string}[], height?: number}}
 *   what
 * @param {(from: number, to: number) => void} [onBrush] gets milliseconds
 */
export class Chart {
  #plot = null;
  #data = null;
  #bounds = null;

  constructor(what, onBrush) {
    this.what = what;
    this.onBrush = onBrush;
    this.values = what.lines.map(() => make("b"));
    this.ranges = what.lines.map(() => make("span", { class: "hint" }));
    this.swatches = what.lines.map(() => make("i", { class: "line", "aria-hidden": "true" }));
    this.place = make("div", { class: "plot", "aria-hidden": "true" });
    this.element = make(
      "figure",
      { class: "card chart" },
      make("figcaption", {}, make("h3", {}, what.title), make("span", { class: "hint" }, what.unit)),
      this.place,
      make(
        "ul",
        { class: "lines" },
        what.lines.map(({ title, help }, at) =>
          make(
            "li",
            { title: help || null },
            this.swatches[at],
            make("span", {}, title),
            this.values[at],
            this.ranges[at],
          ),
        ),
      ),
    );
    new ResizeObserver(() => this.#fit()).observe(this.place);
  }

  /** Show data as `align` gives it, between two moments in seconds. */
  show(data, from, to) {
    this.#data = data;
    this.#bounds = { min: from, max: to };
    if (!this.#plot) this.#make();
    else {
      this.#plot.batch(() => {
        this.#plot.setData(data, false);
        this.#plot.setScale("x", this.#bounds);
      });
    }
    this.#legend(null);
    this.what.lines.forEach((_, at) => say(this.ranges[at], rangeOf(data[at + 1], this.what.unit)));
  }

  /** Draw anew, in the colours of the theme. */
  recolour() {
    if (!this.#plot) return;
    this.#plot.destroy();
    this.#make();
  }

  #fit() {
    const width = this.place.clientWidth;
    if (this.#plot && width > 0 && width !== this.#plot.width) {
      this.#plot.setSize({ width, height: this.#plot.height });
    }
  }

  #make() {
    const { what } = this;
    const colours = LINES[theme()];
    what.lines.forEach((_, at) => {
      const colour = colours[at % colours.length];
      const dash = DASHES[at % DASHES.length].length ? "dashed" : "solid";
      this.swatches[at].style.borderTop = `2px ${dash} ${colour}`;
    });
    const options = {
      width: Math.max(120, this.place.clientWidth),
      height: what.height ?? 190,
      legend: { show: false },
      padding: [8, 20, 0, 0],
      cursor: {
        // Others follow the pointer; a brush is of the chart that it was drawn on.
        sync: { key: "charts", setSeries: false, filters: { pub: (type) => FOLLOWED.has(type) } },
        drag: { x: Boolean(this.onBrush), y: false, setScale: false },
        points: { size: 7 },
      },
      select: { show: Boolean(this.onBrush) },
      scales: {
        x: { time: true, range: () => [this.#bounds.min, this.#bounds.max] },
        y: { range: (_, low, high) => rangeFor(what.unit, low, high) },
      },
      axes: [
        axis({ space: 64, size: 34, values: (_, times, __, ___, step) => ticks(times, step) }),
        axis({
          size: 64,
          incrs: what.unit === "MiB" ? POWERS : undefined,
          values: (_, values) => values.map((value) => label(value, what.unit)),
        }),
      ],
      series: [
        {},
        ...what.lines.map(({ title }, at) => ({
          label: title,
          stroke: colours[at % colours.length],
          width: 1.75,
          fill: what.lines.length === 1 ? `${colours[0]}18` : null,
          dash: DASHES[at % DASHES.length],
          points: { show: false },
          spanGaps: false,
        })),
      ],
      hooks: {
        ready: this.onBrush ? [brushByFinger] : [],
        setCursor: [(plot) => this.#legend(plot.cursor.idx)],
        setSelect: [(plot) => this.#brush(plot)],
      },
    };
    this.#plot = new window.uPlot(options, this.#data, this.place);
  }

  #brush(plot) {
    const { left, width } = plot.select;
    if (width < 4) return;
    const from = plot.posToVal(left, "x") * 1000;
    const to = plot.posToVal(left + width, "x") * 1000;
    plot.setSelect({ left: 0, width: 0, top: 0, height: 0 }, false);
    this.onBrush?.(from, to);
  }

  /** Write the values at a place of the time axis; the last there are for null. */
  #legend(place) {
    this.what.lines.forEach((_, at) => {
      const row = this.#data[at + 1];
      const value = place === null || place === undefined ? lastOf(row) : nearest(row, place);
      say(this.values[at], quantity(value, this.what.unit));
    });
  }
}

function axis(more) {
  return {
    stroke: styled("--muted"),
    font: FONT,
    grid: { stroke: styled("--line"), width: 1 },
    ticks: { stroke: styled("--line"), width: 1, size: 4 },
    ...more,
  };
}

function label(value, unit) {
  return unit === "MiB" ? quantity(value, unit) : short(value);
}

function rangeFor(unit, low, high) {
  if (low === null || high === null) return [0, unit === "%" ? 100 : 1];
  if (unit === "%") return [Math.min(0, low), Math.max(100, high)];
  // Nothing in the queue is a line at the bottom, not one in the middle of half a record.
  if (unit === "records" && high < 10) return [0, 10];
  const bottom = FROM_ZERO.has(unit) ? Math.min(0, low) : low;
  const room = (high - bottom) * 0.1 || Math.abs(high) * 0.1 || 1;
  return [FROM_ZERO.has(unit) && bottom === 0 ? 0 : bottom - room, high + room];
}

function lastOf(row) {
  for (let at = row.length - 1; at >= 0; at--) if (Number.isFinite(row[at])) return row[at];
  return NaN;
}

/** A line may have no value just where another has one. */
function nearest(row, place) {
  for (let off = 0; off < 4; off++) {
    if (Number.isFinite(row[place - off])) return row[place - off];
    if (Number.isFinite(row[place + off])) return row[place + off];
  }
  return NaN;
}

function rangeOf(row, unit) {
  let low = Infinity;
  let high = -Infinity;
  for (const value of row) {
    if (!Number.isFinite(value)) continue; // null would count as 0
    if (value < low) low = value;
    if (value > high) high = value;
  }
  if (low > high) return "nothing in this time";
  if (low === high) return "constant";
  const [from, to] = [quantity(low, unit), quantity(high, unit)];
  const suffix = to.replace(/^[-\d.,]+/, "");
  return suffix && from.endsWith(suffix) ? `${from.slice(0, -suffix.length)} to ${to}` : `${from} to ${to}`;
}
