// The heat map on its canvas. It draws what changed, once a frame; what is chosen lies on a second
// canvas above, so that moving about redraws nothing below.

import { css, ramp, stepOf } from "./colour.js";
import { byId } from "./dom.js";
import { cellAt, hit, layOut, move, rowAt } from "./layout.js";
import { onTheme, styled, theme } from "./shell.js";

const COLOURS = 64;
const NAME_FONT = "12px system-ui, sans-serif";
/** Part of the window's height that the map takes before cells become smaller. */
const HEIGHT = 0.62;

export class HeatMap {
  #box = byId("map");
  #cells = byId("map-cells");
  #over = byId("map-over");
  #layout = null;
  #selection = null;
  #value = () => NaN;
  #wrong = () => false;
  #bounds = { low: 0, high: 100 };
  #palette = [];
  #dirty = new Set();
  #whole = false;
  #frame = 0;
  /** The GPU under the pointer or the keys, by its number; -1 is none. */
  chosen = -1;

  /**
   * @param {(number: number, at: {x: number, y: number}|null, byKey: boolean) => void} onChosen
   * @param {(number: number) => void} onOpen
   */
  constructor(onChosen, onOpen) {
    this.onChosen = onChosen;
    this.onOpen = onOpen;
    new ResizeObserver(() => this.#lay()).observe(this.#box);
    onTheme(() => this.#colour());
    this.#listen();
  }

  /** Show these GPUs: `value` and `wrong` are asked for by number. */
  show(selection, bounds, value, wrong) {
    const same = this.#selection === selection;
    this.#selection = selection;
    this.#bounds = bounds;
    this.#value = value;
    this.#wrong = wrong;
    if (same && this.#layout) this.#drawAll();
    else this.#lay();
  }

  /** These GPUs have other values now. */
  changed(numbers) {
    for (const number of numbers) this.#dirty.add(number);
    this.#soon();
  }

  /** Give the colours from low to high, as CSS. */
  get palette() {
    return this.#palette;
  }

  #colour() {
    this.#palette = ramp(theme(), COLOURS).map(css);
    this.#drawAll();
  }

  #lay() {
    if (!this.#selection?.counts.length) return;
    if (!this.#palette.length) this.#palette = ramp(theme(), COLOURS).map(css);
    const context = this.#cells.getContext("2d");
    context.font = NAME_FONT;
    const longest = this.#selection.hosts.reduce(
      (most, host) => (host.length > most.length ? host : most),
      "",
    );
    const name = Math.min(180, Math.ceil(context.measureText(longest).width) + 10);
    const height = Math.max(220, innerHeight * HEIGHT);
    this.#layout = layOut(this.#selection.counts, this.#box.clientWidth, height, name);
    for (const canvas of [this.#cells, this.#over]) {
      const { width, height: tall } = this.#layout;
      canvas.width = Math.ceil(width * devicePixelRatio);
      canvas.height = Math.ceil(tall * devicePixelRatio);
      canvas.style.width = `${width}px`;
      canvas.style.height = `${tall}px`;
      canvas.getContext("2d").setTransform(devicePixelRatio, 0, 0, devicePixelRatio, 0, 0);
    }
    this.#drawAll();
    this.#ring();
  }

  #drawAll() {
    this.#whole = true;
    this.#soon();
  }

  #soon() {
    this.#frame ||= requestAnimationFrame(() => {
      this.#frame = 0;
      if (this.#layout) this.#draw();
      this.#whole = false;
      this.#dirty.clear();
    });
  }

  #draw() {
    const context = this.#cells.getContext("2d");
    const numbers = this.#whole ? this.#selection.numbers : this.#dirty;
    if (this.#whole) {
      context.clearRect(0, 0, this.#layout.width, this.#layout.height);
      this.#drawNames(context);
    }
    // By colour: to change the colour costs more than to fill a cell.
    const buckets = new Map();
    for (const number of numbers) {
      const at = this.#selection.placeOf(number);
      if (!at) continue;
      const step = stepOf(this.#value(number), this.#bounds.low, this.#bounds.high, COLOURS);
      const bucket = buckets.get(step) ?? [];
      if (!bucket.length) buckets.set(step, bucket);
      bucket.push(number, at);
    }
    const none = styled("--none");
    for (const [step, bucket] of buckets) {
      context.fillStyle = step < 0 ? none : this.#palette[step];
      for (let i = 1; i < bucket.length; i += 2) this.#fill(context, bucket[i]);
    }
    context.fillStyle = styled("--bad-mark");
    context.strokeStyle = styled("--surface");
    for (const bucket of buckets.values()) {
      for (let i = 0; i < bucket.length; i += 2) {
        if (this.#wrong(bucket[i])) this.#mark(context, bucket[i + 1]);
      }
    }
  }

  #drawNames(context) {
    const { name, cell } = this.#layout;
    if (!name) return;
    context.font = NAME_FONT;
    context.fillStyle = styled("--muted");
    context.textBaseline = "middle";
    this.#selection.hosts.forEach((host, at) => {
      const { x, y } = rowAt(this.#layout, at);
      context.fillText(shortened(context, host, name - 8), x, y + (cell - 2) / 2 + 1);
    });
  }

  #fill(context, at) {
    const { x, y } = cellAt(this.#layout, at.host, at.place);
    const side = this.#layout.cell - this.#layout.gap;
    if (side < 10) {
      context.fillRect(x, y, side, side);
      return;
    }
    context.beginPath();
    context.roundRect(x, y, side, side, 3);
    context.fill();
  }

  /** A corner, so that a problem is seen by its shape and not only by its colour. */
  #mark(context, at) {
    const { x, y } = cellAt(this.#layout, at.host, at.place);
    const side = this.#layout.cell - this.#layout.gap;
    const size = Math.max(4, side * 0.55);
    context.beginPath();
    context.moveTo(x + side - size, y);
    context.lineTo(x + side, y);
    context.lineTo(x + side, y + size);
    context.closePath();
    context.fill();
    if (side >= 10) context.stroke();
  }

  #ring() {
    const context = this.#over.getContext("2d");
    context.clearRect(0, 0, this.#layout.width, this.#layout.height);
    const at = this.chosen < 0 ? null : this.#selection.placeOf(this.chosen);
    if (!at) return;
    const { x, y } = cellAt(this.#layout, at.host, at.place);
    const side = this.#layout.cell - this.#layout.gap;
    for (const [width, colour] of [
      [4, styled("--surface")],
      [2, styled("--text")],
    ]) {
      context.lineWidth = width;
      context.strokeStyle = colour;
      context.strokeRect(x - 1, y - 1, side + 2, side + 2);
    }
  }

  #choose(number, byKey) {
    if (number === this.chosen && !byKey) return;
    this.chosen = number;
    this.#ring();
    const at = number < 0 ? null : this.#selection.placeOf(number);
    const corner = at && cellAt(this.#layout, at.host, at.place);
    this.onChosen(number, corner && { ...corner, cell: this.#layout.cell }, byKey);
    if (byKey && corner) this.#reveal(corner);
  }

  /** Scroll the page so that the chosen cell is seen: a map of a large fleet is taller than it. */
  #reveal({ y }) {
    const top = this.#over.getBoundingClientRect().top + y;
    if (top < 80) scrollBy(0, top - 120);
    else if (top > innerHeight - 60) scrollBy(0, top - innerHeight + 120);
  }

  #at(event) {
    if (!this.#layout) return -1;
    const { left, top } = this.#over.getBoundingClientRect();
    const found = hit(
      this.#layout,
      this.#selection.counts,
      event.clientX - left,
      event.clientY - top,
    );
    return found ? this.#selection.indexAt(found) : -1;
  }

  #listen() {
    const box = this.#box;
    box.addEventListener("pointermove", (event) => this.#choose(this.#at(event), false));
    box.addEventListener("pointerleave", () => this.#choose(-1, false));
    box.addEventListener("click", (event) => {
      const number = this.#at(event);
      if (number >= 0) this.onOpen(number);
    });
    box.addEventListener("blur", () => this.#choose(-1, false));
    box.addEventListener("focus", () => {
      if (box.matches(":focus-visible") && this.chosen < 0 && this.#selection?.numbers.length) {
        this.#choose(this.#selection.numbers[0], true);
      }
    });
    box.addEventListener("keydown", (event) => this.#onKey(event));
  }

  #onKey(event) {
    if (!this.#layout || event.altKey || event.metaKey) return;
    if (event.key === "Enter" && this.chosen >= 0) {
      this.onOpen(this.chosen);
    } else if (/^(Arrow|Page|Home|End)/.test(event.key)) {
      const at = this.#selection.placeOf(this.chosen) ?? { host: 0, place: 0 };
      const next = move(this.#layout, this.#selection.counts, at, event.key, event.ctrlKey);
      this.#choose(this.#selection.indexAt(next), true);
    } else return;
    event.preventDefault();
  }
}

/** Cut a name in its middle to fit: its ends tell hosts apart. */
function shortened(context, name, width) {
  if (context.measureText(name).width <= width) return name;
  let keep = name.length - 1;
  while (keep > 3) {
    const half = Math.ceil(keep / 2);
    const cut = `${name.slice(0, half)}…${name.slice(name.length - (keep - half))}`;
    if (context.measureText(cut).width <= width) return cut;
    keep -= 1;
  }
  return name.slice(0, 3);
}
