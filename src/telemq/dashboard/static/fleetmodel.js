// What the fleet page knows: every GPU, the latest value of a few metrics, and what follows from
// them. Pure: devices and samples in, numbers out. Values lie in one typed array a metric, so that
// ten thousand GPUs are a matter of microseconds.

export const UTIL = "DCGM_FI_DEV_GPU_UTIL";
export const TEMP = "DCGM_FI_DEV_GPU_TEMP";
export const POWER = "DCGM_FI_DEV_POWER_USAGE";
export const USED = "DCGM_FI_DEV_FB_USED";
export const FREE = "DCGM_FI_DEV_FB_FREE";
export const FOLLOWED = [UTIL, TEMP, POWER, USED, FREE];

/** From this utilisation on a GPU counts as busy. */
const BUSY = 5;

/** What the map can be coloured by, by the word in the URL. */
export const VIEWS = {
  utilization: { title: "Utilisation", unit: "%", low: 0, high: 100 },
  temperature: { title: "Temperature", unit: "°C", low: 20, high: 90 },
  power: { title: "Power", unit: "W", low: 0, high: null },
  memory: { title: "Memory", unit: "%", low: 0, high: 100 },
};

const order = new Intl.Collator("en", { numeric: true });

export class Fleet {
  gpus = [];
  #place = new Map();
  #values = new Map();
  newest = NaN;

  /** Take the devices, as `/api/v1/devices` gives them. */
  constructor(devices = []) {
    this.gpus = [...devices].sort(
      (one, other) =>
        order.compare(one.hostname, other.hostname) ||
        order.compare(one.gpu_id, other.gpu_id) ||
        order.compare(one.uuid, other.uuid),
    );
    for (const name of FOLLOWED) {
      this.#values.set(name, new Float64Array(this.gpus.length).fill(NaN));
    }
    this.seen = new Float64Array(this.gpus.length).fill(NaN);
    this.gpus.forEach((gpu, at) => this.#add(gpu, at));
  }

  #add(gpu, at) {
    this.#place.set(gpu.uuid, at);
    this.#see(at, Date.parse(gpu.last_seen ?? ""));
    for (const name of FOLLOWED) {
      const latest = gpu.latest?.[name];
      if (latest) this.#values.get(name)[at] = latest.value;
    }
  }

  #see(at, time) {
    if (Number.isNaN(time)) return;
    if (!(time <= this.seen[at])) this.seen[at] = time;
    if (!(time <= this.newest)) this.newest = time;
  }

  /**
   * Take samples as `/api/v1/live` gives them: [uuid, metric, time, value].
   *
   * @returns {{changed: number[], unknown: boolean}} which GPUs changed; whether one is not known
   */
  apply(samples) {
    const changed = new Set();
    let unknown = false;
    for (const [uuid, name, time, value] of samples) {
      const at = this.#place.get(uuid);
      if (at === undefined) {
        unknown = true;
        continue;
      }
      this.#see(at, Date.parse(time));
      const values = this.#values.get(name);
      if (values && values[at] !== value) {
        values[at] = value ?? NaN;
        changed.add(at);
      }
    }
    return { changed: [...changed], unknown };
  }

  /** Give the number of a GPU, or -1. */
  indexOf(uuid) {
    return this.#place.get(uuid) ?? -1;
  }

  /** Give the latest value of a metric, NaN for none. */
  latest(name, at) {
    return this.#values.get(name)[at];
  }

  /** Give a GPU's value in one of `VIEWS`. */
  value(view, at) {
    switch (view) {
      case "temperature":
        return this.latest(TEMP, at);
      case "power":
        return this.latest(POWER, at);
      case "memory": {
        const used = this.latest(USED, at);
        return (100 * used) / (used + this.latest(FREE, at));
      }
      default:
        return this.latest(UTIL, at);
    }
  }

  /** Give the bounds of a view's colours: fixed, but power has the fleet's own, a round number. */
  bounds(view) {
    const { low, high } = VIEWS[view];
    if (high !== null) return { low, high };
    let most = 0;
    for (let at = 0; at < this.gpus.length; at++) {
      const value = this.value(view, at);
      if (value > most) most = value;
    }
    return { low, high: Math.max(100, Math.ceil(most / 100) * 100) };
  }

  /** Give what the whole fleet adds up to; a GPU without a value counts in no mean. */
  totals() {
    const hosts = new Set(this.gpus.map((gpu) => gpu.hostname)).size;
    const sum = { gpus: this.gpus.length, hosts, busy: 0, measured: 0 };
    // What nobody measures is not 0: it stays unknown until the first value.
    const added = { utilization: 0, power: NaN, used: NaN, memory: NaN, hottest: NaN, hottestAt: -1 };
    for (let at = 0; at < this.gpus.length; at++) {
      const utilization = this.latest(UTIL, at);
      if (Number.isFinite(utilization)) {
        sum.measured += 1;
        added.utilization += utilization;
        if (utilization >= BUSY) sum.busy += 1;
      }
      const power = this.latest(POWER, at);
      if (Number.isFinite(power)) added.power = (added.power || 0) + power;
      const used = this.latest(USED, at);
      const memory = used + this.latest(FREE, at);
      if (Number.isFinite(memory)) {
        added.used = (added.used || 0) + used;
        added.memory = (added.memory || 0) + memory;
      }
      const temperature = this.latest(TEMP, at);
      if (!(temperature <= added.hottest) && Number.isFinite(temperature)) {
        added.hottest = temperature;
        added.hottestAt = at;
      }
    }
    return { ...sum, ...added, utilization: added.utilization / sum.measured };
  }
}

/** The GPUs that a search leaves, host by host: what the map shows, and the table. */
export class Selection {
  hosts = [];
  counts = [];
  #first = [];

  constructor(fleet, search = "") {
    const words = search.toLowerCase().split(/\s+/).filter(Boolean);
    this.numbers = [];
    fleet.gpus.forEach((gpu, at) => {
      if (!matches(gpu, words)) return;
      if (!this.hosts.length || this.hosts.at(-1) !== gpu.hostname) {
        this.hosts.push(gpu.hostname);
        this.counts.push(0);
        this.#first.push(this.numbers.length);
      }
      this.counts[this.counts.length - 1] += 1;
      this.numbers.push(at);
    });
  }

  /** Give the number of the GPU in a place of a host; -1 if there is none. */
  indexAt({ host, place }) {
    return this.numbers[this.#first[host] + place] ?? -1;
  }

  /** Give the host and the place of a GPU by its number; null if it is not among them. */
  placeOf(number) {
    const at = last(this.numbers, number);
    if (this.numbers[at] !== number) return null;
    const host = last(this.#first, at);
    return { host, place: at - this.#first[host] };
  }
}

/** Give where the last number is that is not above another; the numbers rise. */
function last(numbers, limit) {
  let low = 0;
  let high = numbers.length - 1;
  while (low < high) {
    const middle = (low + high + 1) >> 1;
    if (numbers[middle] <= limit) low = middle;
    else high = middle - 1;
  }
  return low;
}

function matches(gpu, words) {
  if (!words.length) return true;
  const pods = (gpu.pods ?? []).flatMap((pod) => [pod.namespace, pod.pod]);
  const text = [gpu.hostname, gpu.uuid, gpu.model_name, gpu.device, ...pods]
    .join(" ")
    .toLowerCase();
  return words.every((word) => text.includes(word));
}
