// Colours of the heat map. Pure.
//
// A ramp runs through OKLCH, a space in which equal steps look equal. Its lightness only rises (in
// the dark) or only falls (in the light), so that it is read by lightness alone: by people who do
// not see some hues, and on paper.

/** Stops of a ramp: lightness 0 to 1, chroma, hue in degrees; the first is the lowest value. */
const STOPS = {
  dark: [
    [0.3, 0.075, 285],
    [0.46, 0.135, 268],
    [0.62, 0.115, 222],
    [0.78, 0.135, 160],
    [0.93, 0.155, 105],
  ],
  light: [
    [0.95, 0.055, 105],
    [0.84, 0.1, 150],
    [0.68, 0.105, 205],
    [0.49, 0.13, 262],
    [0.29, 0.1, 285],
  ],
};

/** Give the sRGB colour of OKLCH: three numbers from 0 to 255, clipped to what a screen has. */
export function fromOklch(lightness, chroma, hue) {
  const a = chroma * Math.cos((hue * Math.PI) / 180);
  const b = chroma * Math.sin((hue * Math.PI) / 180);
  const l = (lightness + 0.3963377774 * a + 0.2158037573 * b) ** 3;
  const m = (lightness - 0.1055613458 * a - 0.0638541728 * b) ** 3;
  const s = (lightness - 0.0894841775 * a - 1.291485548 * b) ** 3;
  return [
    4.0767416621 * l - 3.3077115913 * m + 0.2309699292 * s,
    -1.2684380046 * l + 2.6097574011 * m - 0.3413193965 * s,
    -0.0041960863 * l - 0.7034186147 * m + 1.707614701 * s,
  ].map((linear) => {
    const light = Math.min(1, Math.max(0, linear));
    const gamma = light <= 0.0031308 ? 12.92 * light : 1.055 * light ** (1 / 2.4) - 0.055;
    return Math.round(255 * gamma);
  });
}

/** Give `count` colours, [red, green, blue], from the lowest value to the highest. */
export function ramp(theme, count) {
  const stops = STOPS[theme];
  return Array.from({ length: count }, (_, step) => {
    const along = (step / (count - 1)) * (stops.length - 1);
    const from = Math.min(Math.floor(along), stops.length - 2);
    const part = along - from;
    const mixed = stops[from].map((value, axis) => value + part * (stops[from + 1][axis] - value));
    return fromOklch(...mixed);
  });
}

/** Give a colour as CSS. */
export function css([red, green, blue]) {
  return `rgb(${red} ${green} ${blue})`;
}

/** Give which of `count` colours a value has; -1 for one that is not known. */
export function stepOf(value, low, high, count) {
  if (!Number.isFinite(value)) return -1;
  const part = high > low ? (value - low) / (high - low) : 0;
  return Math.min(count - 1, Math.max(0, Math.floor(part * count)));
}

/** Colours of a chart's lines, for up to eight of them; told apart without hue by their dashes. */
export const LINES = {
  dark: ["#7aa2ff", "#f2b84b", "#4fd1a5", "#ff8f87", "#c79bff", "#5cc8ea", "#e58fc2", "#b8c34a"],
  light: ["#2456d6", "#b45f06", "#0b7a5a", "#b3261e", "#7c3fbf", "#0a6f93", "#a8327d", "#5f6b00"],
};
export const DASHES = [[], [7, 4], [2, 3], [10, 4, 2, 4], [5, 2], [14, 5], [3, 6], [8, 3, 3, 3]];
