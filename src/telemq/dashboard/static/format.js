// Numbers, times and names as people read them. Pure; times are shown in the browser's zone.

const DASH = "–";
const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const tenths = new Intl.NumberFormat("en", { maximumFractionDigits: 1 });
const hundredths = new Intl.NumberFormat("en", { maximumFractionDigits: 2 });

/** Write a number with as many digits as are worth reading: 1,234 · 98.7 · 0.42; a dash for none. */
export function number(value) {
  if (!Number.isFinite(value)) return DASH;
  const size = Math.abs(value);
  return (size >= 1000 || Number.isInteger(value) ? whole : size >= 10 ? tenths : hundredths).format(
    value,
  );
}

/** Write a number with so many digits after the point, as a column of numbers needs it. */
export function fixed(value, digits) {
  if (!Number.isFinite(value)) return DASH;
  return value.toLocaleString("en", {
    minimumFractionDigits: digits,
    maximumFractionDigits: digits,
  });
}

/** Write a count in few characters: 950 · 12.3 k · 4.56 M. */
export function short(value) {
  if (!Number.isFinite(value)) return DASH;
  for (const [size, letter] of [
    [1e12, "T"],
    [1e9, "G"],
    [1e6, "M"],
    [1e4, "k"],
  ]) {
    if (Math.abs(value) >= size) {
      return `${hundredths.format(value / (letter === "k" ? 1e3 : size))} ${letter}`;
    }
  }
  return number(value);
}

/** Write a value with its unit; large watts, MiB and bytes in a larger unit. */
export function quantity(value, unit = "") {
  if (!Number.isFinite(value)) return DASH;
  const size = Math.abs(value);
  if (unit === "W" && size >= 1e6) return `${number(value / 1e6)} MW`;
  if (unit === "W" && size >= 1e4) return `${number(value / 1e3)} kW`;
  if (unit === "MiB" && size >= 2 ** 20) return `${number(value / 2 ** 20)} TiB`;
  if (unit === "MiB" && size >= 2 ** 10) return `${number(value / 2 ** 10)} GiB`;
  return unit === "" ? number(value) : `${number(value)} ${unit}`;
}

/** Write a span of seconds: 850 ms · 12 s · 5 min · 3.5 h · 2 d. */
export function duration(seconds) {
  if (!Number.isFinite(seconds)) return DASH;
  const size = Math.abs(seconds);
  if (size < 1) return `${whole.format(seconds * 1000)} ms`;
  if (size < 120) return `${size < 10 ? tenths.format(seconds) : whole.format(seconds)} s`;
  if (size < 7200) return `${whole.format(seconds / 60)} min`;
  if (size < 172_800) return `${tenths.format(seconds / 3600)} h`;
  return `${tenths.format(seconds / 86_400)} d`;
}

/** Write how long ago a moment was: "3 s ago"; "in 5 min" for a clock that runs ahead. */
export function ago(time, now) {
  const seconds = (now - time) / 1000;
  if (!Number.isFinite(seconds)) return "never";
  if (seconds < -2) return `in ${duration(-seconds)}`;
  return seconds < 2 ? "now" : `${duration(seconds)} ago`;
}

const clock = new Intl.DateTimeFormat("sv-SE", {
  year: "numeric",
  month: "2-digit",
  day: "2-digit",
  hour: "2-digit",
  minute: "2-digit",
  second: "2-digit",
});

/** Write a moment: 2026-01-15 10:00:00, in the browser's zone. */
export function moment(time) {
  const date = new Date(time);
  return Number.isNaN(date.getTime()) ? DASH : clock.format(date);
}

/** Write a moment of the last hours without its day. */
export function recent(time, now) {
  return Math.abs(now - time) < 43_200_000 ? moment(time).slice(11) : moment(time);
}

/**
 * Write the ticks of an axis of time, in seconds: clock times, and the day where one begins or when
 * steps are days.
 */
export function ticks(times, step) {
  let day = null;
  return times.map((time) => {
    const date = new Date(time * 1000);
    const text = clock.format(date);
    const [today, oclock] = text.split(" ");
    const first = today !== day && (day !== null || step >= 86_400);
    day = today;
    if (first || step >= 86_400) return today.slice(5);
    return step < 60 ? oclock : oclock.slice(0, 5);
  });
}

/** Make a metric's name readable: DCGM_FI_DEV_GPU_UTIL becomes "GPU util". */
export function metricTitle(name) {
  const words = name.replace(/^DCGM_FI_(DEV|PROF)_/, "").split("_");
  const known = /^(GPU|SM|XID|ECC|FB|NVLINK|PCIE|PCI|DRAM|TX|RX|SBE|DBE|FP16|FP32|FP64|VGPU)$/;
  return words
    .map((word, place) => {
      if (known.test(word)) return word;
      const lower = word.toLowerCase();
      return place === 0 ? lower.charAt(0).toUpperCase() + lower.slice(1) : lower;
    })
    .join(" ");
}

/** Count things: "1 GPU", "2 GPUs". */
export function count(how_many, one, many = `${one}s`) {
  return `${number(how_many)} ${how_many === 1 ? one : many}`;
}
