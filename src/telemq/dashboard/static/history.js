// What the pipeline page saw since it was opened: numbers over time, for its charts. Pure.

/** Rows of numbers, one every time of asking; the oldest are forgotten. */
export class History {
  #rows = [];

  /** @param {number} rowsMax most moments that are kept */
  constructor(rowsMax) {
    this.rowsMax = rowsMax;
  }

  /** When the oldest row is of, in seconds. */
  get since() {
    return this.#rows[0]?.[0] ?? NaN;
  }

  /** Add what was seen at a moment, in seconds; null where there was nothing to see. */
  add(time, numbers) {
    this.#rows.push([time, ...numbers]);
    if (this.#rows.length > this.rowsMax) this.#rows.shift();
  }

  /** Give columns as a chart wants them: times, then some of the numbers, by their place. */
  columns(...places) {
    return [0, ...places.map((place) => place + 1)].map((at) => this.#rows.map((row) => row[at]));
  }
}

/** Add up a number of all brokers that answered; null if none did. */
export function sumOf(brokers, name) {
  const numbers = brokers.map((broker) => broker[name]).filter(Number.isFinite);
  return numbers.length ? numbers.reduce((sum, one) => sum + one, 0) : null;
}

/** Give the largest of a number of all brokers that answered; null if none did. */
export function mostOf(brokers, name) {
  const numbers = brokers.map((broker) => broker[name]).filter(Number.isFinite);
  return numbers.length ? Math.max(...numbers) : null;
}
