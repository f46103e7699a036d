// The fleet: every GPU on one map, what it adds up to, what is wrong.

import { ask, askWithHeaders } from "./api.js";
import { byId, fill, link, make, remember, say } from "./dom.js";
import { FOLLOWED, Fleet, Selection, VIEWS } from "./fleetmodel.js";
import { fleetTable } from "./fleettable.js";
import { ago, count, number, quantity, recent } from "./format.js";
import { HeatMap } from "./heatmap.js";
import { follow } from "./live.js";
import { onTheme, repeat, showLive, start } from "./shell.js";
import { SPANS, rfc3339 } from "./span.js";
import { problemsOf, unmeasured, wrongList } from "./wrong.js";

const DEVICES_EVERY_MS = 60_000;
const WRONG_EVERY_MS = 60_000;
/** How far back a problem may lie and still be told; the first is the usual. */
const WITHIN = ["1h", "6h", "24h"];
const TOTALS_EVERY_MS = 1000;
const TABLE_EVERY_MS = 5000;
/** A GPU that is new is asked for, but not each of a thousand new ones. */
const STRANGERS_EVERY_MS = 5000;

const query = new URLSearchParams(location.search);
const state = {
  by: Object.hasOwn(VIEWS, query.get("by")) ? query.get("by") : "utilization",
  view: query.get("view") === "table" ? "table" : "map",
  search: query.get("search") ?? "",
  within: WITHIN.includes(query.get("within")) ? query.get("within") : WITHIN[0],
};
let fleet = new Fleet();
let selection = new Selection(fleet);
let bounds = fleet.bounds(state.by);
let problems = new Map();
let asked = false;
let askedAgain = 0;

start();
const map = new HeatMap(onChosen, open);
onTheme(drawLegend);
choices(
  "by",
  Object.entries(VIEWS).map(([name, { title }]) => [name, title]),
  () => show(),
);
choices(
  "view",
  [
    ["map", "Map"],
    ["table", "Table"],
  ],
  () => show(),
);
const search = byId("search");
search.value = state.search;
search.addEventListener("input", () => {
  state.search = search.value.trim();
  remember({ search: state.search });
  select();
});

const within = byId("within");
fill(
  within,
  WITHIN.map((name) => make("option", { value: name }, SPANS[name].title)),
);
within.value = state.within;
within.addEventListener("change", () => {
  state.within = within.value;
  remember({ within: state.within === WITHIN[0] ? null : state.within });
  health.again();
});

const devices = repeat(
  "devices",
  async (signal) => {
    const found = await ask("devices", { signal });
    const chosen = fleet.gpus[map.chosen]?.uuid;
    fleet = new Fleet(found);
    asked = true;
    select(chosen);
    showTotals();
  },
  () => DEVICES_EVERY_MS,
);
const health = repeat(
  "health",
  async (signal) => {
    // To the full minute, so that the gateway answers all who look at the same time at once.
    const since = Math.floor(Date.now() / 60_000) * 60_000 - SPANS[state.within].seconds * 1000;
    const parameters = { start_time: rfc3339(since) };
    const { found, headers } = await askWithHeaders("fleet/health", { parameters, signal });
    say(byId("unmeasured"), unmeasured(headers.get("Telemq-Not-Measured")));
    problems = problemsOf(found);
    fill(byId("wrong"), wrongList(found));
    show();
  },
  () => WRONG_EVERY_MS,
);
follow({ metric: FOLLOWED }, onSamples, showLive);
show();
setInterval(() => {
  showTotals();
  if (state.view === "map" && fleet.bounds(state.by).high !== bounds.high) show();
}, TOTALS_EVERY_MS);
setInterval(() => {
  // Under the hands of somebody who reads a row with the keyboard nothing is replaced.
  const reading = byId("table-view").querySelector("tbody")?.contains(document.activeElement);
  if (state.view === "table" && !reading) show();
}, TABLE_EVERY_MS);

function onSamples(samples) {
  const { changed, unknown } = fleet.apply(samples);
  map.changed(changed);
  if (unknown && asked && Date.now() - askedAgain > STRANGERS_EVERY_MS) {
    askedAgain = Date.now();
    devices.again();
  }
}

/** Choose what is shown; the GPU that was chosen on the map stays so, if it is still there. */
function select(chosen = fleet.gpus[map.chosen]?.uuid) {
  selection = new Selection(fleet, state.search);
  map.chosen = fleet.indexOf(chosen);
  show();
}

function show() {
  const none = selection.numbers.length === 0;
  byId("empty").hidden = !none;
  byId("map-view").hidden = none || state.view !== "map";
  byId("table-view").hidden = none || state.view !== "table";
  fill(byId("empty"), none ? emptyWords() : []);
  if (none) return;
  if (state.view === "table") {
    fleetTable(byId("table-view"), fleet, selection, problems);
    return;
  }
  const { unit } = VIEWS[state.by];
  bounds = fleet.bounds(state.by);
  say(byId("legend-low"), quantity(bounds.low, unit));
  say(byId("legend-high"), quantity(bounds.high, unit));
  map.show(
    selection,
    bounds,
    (at) => fleet.value(state.by, at),
    (at) => problems.has(fleet.gpus[at].uuid),
  );
  drawLegend();
}

function emptyWords() {
  if (!asked) return [make("p", { class: "hint" }, "Asking for the GPUs…")];
  if (fleet.gpus.length) {
    return [make("p", { class: "empty" }, `No GPU's host, pod, model or UUID has “${state.search}”.`)];
  }
  return [
    make(
      "div",
      { class: "empty" },
      make("h3", {}, "No GPU has been seen yet"),
      make("p", {}, "Samples appear here as soon as a collector stores them. To try it with a made-up fleet:"),
      make("pre", {}, make("code", {}, "telemq up")),
      make("p", {}, "or, beside a broker and a collector that run, your own file:"),
      make("pre", {}, make("code", {}, "telemq stream csv dcgm_metrics.csv")),
    ),
  ];
}

function showTotals() {
  if (!fleet.gpus.length) return;
  const total = fleet.totals();
  const hottest = fleet.gpus[total.hottestAt];
  const tiles = [
    ["GPUs", number(total.gpus), `on ${count(total.hosts, "host")}`],
    ["Busy", number(total.busy), `of ${number(total.measured)} measured`],
    ["Utilisation", quantity(total.utilization, "%"), "mean"],
    ["Power", quantity(total.power, "W"), "all together"],
    ["Memory", quantity(total.used, "MiB"), `of ${quantity(total.memory, "MiB")}`],
    [
      "Hottest",
      quantity(total.hottest, "°C"),
      hottest ? `${hottest.hostname}, GPU ${hottest.gpu_id}` : "",
      hottest && link("gpu", { id: hottest.uuid }),
    ],
    ["Newest sample", ago(fleet.newest, Date.now()), recent(fleet.newest, Date.now())],
  ];
  const place = byId("totals");
  if (place.childElementCount !== tiles.length) {
    fill(
      place,
      tiles.map(([name]) =>
        make("div", { class: "tile" }, make("p", {}, name), make("b"), make("span")),
      ),
    );
  }
  tiles.forEach(([, value, text, url], at) => {
    const tile = place.children[at];
    say(tile.querySelector("b"), value);
    const under = tile.querySelector("span");
    if (!url) say(under, text);
    else if (under.textContent !== text) fill(under, make("a", { href: url }, text));
  });
}

function drawLegend() {
  const canvas = byId("legend");
  const context = canvas.getContext("2d");
  const colours = map?.palette ?? [];
  colours.forEach((colour, at) => {
    context.fillStyle = colour;
    const from = Math.floor((at * canvas.width) / colours.length);
    context.fillRect(from, 0, Math.ceil(canvas.width / colours.length) + 1, canvas.height);
  });
}

function describe(at) {
  const gpu = fleet.gpus[at];
  const values = Object.entries(VIEWS).map(
    ([name, { title, unit }]) => `${title.toLowerCase()} ${quantity(fleet.value(name, at), unit)}`,
  );
  const pods = (gpu.pods ?? []).map((pod) => `${pod.namespace}/${pod.pod}`);
  return { gpu, values, pods, wrong: problems.get(gpu.uuid) ?? [] };
}

function onChosen(at, corner, byKey) {
  const tip = byId("tip");
  tip.hidden = at < 0;
  byId("map").classList.toggle("over", at >= 0);
  if (at < 0) return;
  const { gpu, values, pods, wrong } = describe(at);
  fill(
    tip,
    make("strong", {}, `${gpu.hostname} · GPU ${gpu.gpu_id}`),
    make("span", {}, gpu.model_name),
    ...values.map((text) => make("span", {}, text)),
    ...pods.slice(0, 3).map((text) => make("span", { class: "pod" }, text)),
    ...wrong.map(({ detail }) => make("span", { class: "error" }, detail)),
    make("span", { class: "hint" }, `seen ${ago(fleet.seen[at], Date.now())}`),
  );
  const room = byId("map").clientWidth - tip.offsetWidth;
  tip.style.left = `${Math.max(0, Math.min(room, corner.x + corner.cell + 8))}px`;
  tip.style.top = `${corner.y + corner.cell + 8}px`;
  if (byKey) {
    say(
      byId("map-say"),
      [`${gpu.hostname}, GPU ${gpu.gpu_id}`, ...values, ...pods, ...wrong.map((p) => p.detail)].join(", "),
    );
  }
}

function open(at) {
  location.href = link("gpu", { id: fleet.gpus[at].uuid });
}

function choices(name, values, onChange) {
  const group = byId(name);
  for (const [value, title] of values) {
    group.append(
      make(
        "button",
        {
          type: "button",
          "aria-pressed": String(state[name] === value),
          onclick: ({ currentTarget }) => {
            state[name] = value;
            remember({ [name]: value });
            for (const button of group.children) {
              button.setAttribute("aria-pressed", String(button === currentTarget));
            }
            onChange();
          },
        },
        title,
      ),
    );
  }
}
