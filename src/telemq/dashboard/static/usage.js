// Who used how much, and who holds GPUs that do nothing.

import { address, ask } from "./api.js";
import { byId, fill, link, make, remember, say, table } from "./dom.js";
import { ago, count, duration, fixed, number, quantity } from "./format.js";
import { saved } from "./save.js";
import { repeat, start } from "./shell.js";
import { SPANS, rfc3339 } from "./span.js";

const EVERY_MS = 60_000;
const GROUPS = { namespace: "Namespace", pod: "Pod", host: "Host" };
const SPANS_HERE = ["1h", "6h", "24h", "7d", "30d"];
const BELOW = { 1: "1 %", 5: "5 %", 10: "10 %", 25: "25 %" };
const MINUTES = { 10: "10 min", 30: "30 min", 60: "1 h", 240: "4 h", 1440: "24 h" };

start();
choice("group_by", GROUPS, "namespace", () => usage.again());
const spans = Object.fromEntries(SPANS_HERE.map((name) => [name, SPANS[name].title]));
choice("span", spans, "24h", () => (usage.again(), idle.again()));
select("below", BELOW, "5", () => idle.again());
select("minutes", MINUTES, "30", () => idle.again());

const usage = repeat(
  "usage",
  async (signal) => {
    const parameters = { group_by: chosen("group_by", GROUPS, "namespace"), ...times() };
    fill(byId("usage-links"), saved(address("fleet/usage", [], parameters), "JSON", "usage.json"));
    showUsage(await ask("fleet/usage", { parameters, signal }), parameters.group_by);
  },
  () => EVERY_MS,
);
const idle = repeat(
  "idle",
  async (signal) => {
    const parameters = {
      below: chosen("below", BELOW, "5"),
      minutes: chosen("minutes", MINUTES, "30"),
      ...times(),
    };
    fill(byId("idle-links"), saved(address("fleet/idle", [], parameters), "JSON", "idle.json"));
    showIdle(await ask("fleet/idle", { parameters, signal }));
  },
  () => EVERY_MS,
);

/** To the full minute, so that a link says the same for a while. */
function times() {
  const now = Math.ceil(Date.now() / 60_000) * 60_000;
  const span = chosen("span", spans, "24h");
  say(byId("shown"), `the last ${SPANS[span].title}`);
  return { start_time: rfc3339(now - SPANS[span].seconds * 1000), end_time: rfc3339(now) };
}

function showUsage(groups, by) {
  const sorted = [...groups].sort((one, other) => other.gpu_hours - one.gpu_hours);
  const hours = sorted.reduce((sum, one) => sum + one.gpu_hours, 0);
  const energy = sorted.reduce((sum, one) => sum + (one.energy_kwh ?? 0), 0);
  const worked = sorted.reduce((sum, one) => sum + one.gpu_hours * (one.mean_utilization ?? 0), 0);
  tiles([
    ["GPU-hours", number(hours), count(sorted.length, GROUPS[by].toLowerCase())],
    ["Utilisation", quantity(worked / hours, "%"), "mean over GPU-hours"],
    ["Energy", `${number(energy)} kWh`, "from power readings"],
    ["Idle", number(hours - worked / 100), "GPU-hours without work"],
  ]);
  if (!sorted.length) {
    fill(
      byId("usage"),
      make("p", { class: "empty" }, "No sample in this time: choose a longer one, or see on the page Pipeline whether records arrive."),
    );
    return;
  }
  const most = sorted[0].gpu_hours;
  fill(
    byId("usage"),
    table(
      `Usage by ${GROUPS[by]}`,
      [
        { head: GROUPS[by], cell: (one) => named(one.group, by) },
        { head: "GPU-hours", number: true, cell: (one) => bar(one.gpu_hours, most, fixed(one.gpu_hours, 1)) },
        {
          head: "Utilisation",
          number: true,
          cell: (one) => bar(one.mean_utilization, 100, `${fixed(one.mean_utilization ?? NaN, 1)} %`),
        },
        { head: "Energy, kWh", number: true, cell: (one) => fixed(one.energy_kwh ?? NaN, 2) },
        { head: "GPUs", number: true, cell: (one) => number(one.gpus) },
      ],
      sorted,
    ),
  );
}

function named(group, by) {
  if (!group) return make("span", { class: "hint" }, `no ${GROUPS[by].toLowerCase()}`);
  return make("a", { href: link(".", { search: group.split("/").at(-1) }) }, group);
}

function bar(value, most, text) {
  const part = Number.isFinite(value) && most > 0 ? (100 * value) / most : 0;
  return make(
    "span",
    { class: "bars" },
    make("span", { class: "share", "aria-hidden": "true" }, make("i", { style: { width: `${part}%` } })),
    make("span", {}, text),
  );
}

function showIdle(found) {
  if (!found.length) {
    fill(byId("idle"), make("p", { class: "good" }, "None: every GPU that a pod holds was at work."));
    return;
  }
  fill(
    byId("idle"),
    table(
      "GPUs that are held but idle",
      [
        { head: "Pod", cell: (one) => `${one.namespace}/${one.pod}` },
        {
          head: "GPU",
          cell: (one) =>
            make("a", { href: link("gpu", { id: one.uuid }) }, `${one.hostname} · GPU ${one.gpu_id}`),
        },
        { head: "Model", cell: (one) => one.model_name },
        { head: "Utilisation", number: true, cell: (one) => `${fixed(one.mean_utilization, 1)} %` },
        { head: "Idle for", number: true, cell: (one) => duration(60 * one.idle_minutes) },
        { head: "Since", cell: (one) => ago(Date.parse(one.since), Date.now()) },
      ],
      found,
    ),
  );
}

function tiles(shown) {
  fill(
    byId("totals"),
    shown.map(([name, value, under]) =>
      make(
        "div",
        { class: "tile" },
        make("p", {}, name),
        make("b", {}, value),
        make("span", {}, under),
      ),
    ),
  );
}

// What the URL asks for

function chosen(name, values, usual) {
  const asked = new URLSearchParams(location.search).get(name);
  return Object.hasOwn(values, asked) ? asked : usual;
}

function choice(name, values, usual, onChange) {
  const group = byId(name);
  const press = () => {
    const now = chosen(name, values, usual);
    for (const button of group.children) {
      button.setAttribute("aria-pressed", String(button.dataset.value === now));
    }
  };
  for (const [value, title] of Object.entries(values)) {
    const choose = () => {
      remember({ [name]: value === usual ? null : value });
      press();
      onChange();
    };
    group.append(make("button", { type: "button", "data-value": value, onclick: choose }, title));
  }
  press();
}

function select(name, values, usual, onChange) {
  const place = byId(name);
  fill(
    place,
    Object.entries(values).map(([value, title]) => make("option", { value }, title)),
  );
  place.value = chosen(name, values, usual);
  place.addEventListener("change", () => {
    remember({ [name]: place.value === usual ? null : place.value });
    onChange();
  });
}
