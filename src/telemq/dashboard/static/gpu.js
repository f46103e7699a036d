// One GPU: what it measured over time, and the samples themselves.

import { Problem, address, ask } from "./api.js";
import { Chart } from "./chart.js";
import { byId, fill, link, make, remember, say } from "./dom.js";
import { FREE, POWER, TEMP, USED, UTIL } from "./fleetmodel.js";
import { ago, duration, moment, quantity, recent } from "./format.js";
import { follow } from "./live.js";
import { chartsOf } from "./metrics.js";
import { RawTable } from "./rawtable.js";
import { saved } from "./save.js";
import { onTheme, repeat, showLive, start } from "./shell.js";
import { SPANS, align, brushed, gapOf, readSpan, refreshMs, rfc3339, stepFor } from "./span.js";
import { problemsOf, wrongList } from "./wrong.js";

const AGGREGATES = { mean: "mean", min: "least", max: "most", p95: "95th percentile", last: "last" };
const NEVER_MS = 2 ** 31 - 1;
/** How old a problem may be and still be told. */
const PROBLEMS_MS = 3_600_000;
const DEVICE_EVERY_MS = 60_000;
const PROBLEMS_EVERY_MS = 60_000;

const id = new URLSearchParams(location.search).get("id") ?? "";
let latest = new Map();
let known = new Map();
let charts = [];
let seen = NaN;

start();
repeat(
  "gpu",
  async (signal) => {
    try {
      if (!id) throw new Problem(404, "No GPU", "The address names no GPU.");
      const device = await ask("devices/{}", { parts: [id], signal });
      if (charts.length) {
        head(device);
        return;
      }
      const metrics = await ask("metrics", { signal });
      known = new Map(metrics.map((metric) => [metric.name, metric]));
      head(device);
      siblings(device.hostname);
      begin(device);
    } catch (error) {
      if (error.status !== 404) throw error;
      nothing(error);
    }
  },
  () => DEVICE_EVERY_MS,
);

function nothing(problem) {
  byId("nothing").hidden = false;
  fill(
    byId("nothing"),
    make(
      "div",
      { class: "card empty" },
      make("h2", {}, "There is no such GPU"),
      make("p", {}, problem.message),
      make("p", {}, make("a", { href: "." }, "Choose one of the fleet")),
    ),
  );
}

function begin(device) {
  byId("all").hidden = false;
  latest = new Map(Object.entries(device.latest));
  seen = Date.parse(device.last_seen ?? "");
  tiles();
  const names = [...latest.keys()];
  charts = chartsOf(names, known).map((what) => {
    const chart = new Chart(what, (from, to) => zoom(brushed(from, to)));
    byId("charts").append(chart.element);
    return chart;
  });
  onTheme(() => charts.forEach((chart) => chart.recolour()));
  controls();
  const lines = repeat("telemetry", draw, () => {
    const { span, from, to } = current();
    return span ? refreshMs((to - from) / 1000) : NEVER_MS;
  });
  const raw = new RawTable(id, names, known, current);
  const again = () => {
    pressed();
    lines.again();
    raw.again();
  };
  addEventListener("popstate", again);
  addEventListener("changed", again);
  repeat("problems", problems, () => PROBLEMS_EVERY_MS);
  follow({ gpu: [id] }, onSamples, showLive);
  setInterval(tiles, 1000);
}

function head(device) {
  const name = `${device.hostname} · GPU ${device.gpu_id}`;
  document.title = `${name} · telemq`;
  say(byId("name"), name);
  fill(
    byId("crumb-host"),
    make("a", { href: link(".", { search: device.hostname }) }, device.hostname),
  );
  const pods = (device.pods ?? []).map((pod) => `${pod.namespace}/${pod.pod}`);
  const driver = device.driver ? `driver ${device.driver}` : "";
  fill(
    byId("about"),
    [device.model_name, driver, device.device].filter(Boolean).join(" · "),
    make("br"),
    make("code", {}, device.uuid),
    pods.length ? make("span", {}, make("br"), `used by ${pods.join(", ")}`) : null,
  );
}

async function siblings(host) {
  let found;
  try {
    found = await ask("devices", { parameters: { host } });
  } catch {
    return; // only a way to get about faster
  }
  const place = byId("siblings");
  place.hidden = found.length < 2;
  const order = new Intl.Collator("en", { numeric: true });
  found.sort((one, other) => order.compare(one.gpu_id, other.gpu_id));
  fill(
    place,
    found.map((gpu) => {
      const { search } = new URL(location.href);
      const query = new URLSearchParams(search);
      query.set("id", gpu.uuid);
      const here = gpu.uuid === id && "page";
      return make(
        "a",
        { href: `gpu?${query}`, "aria-current": here, "aria-label": `GPU ${gpu.gpu_id}` },
        gpu.gpu_id,
      );
    }),
  );
}

function onSamples(samples) {
  for (const [uuid, name, timestamp, value] of samples) {
    if (uuid !== id) continue;
    seen = Math.max(seen || 0, Date.parse(timestamp));
    latest.set(name, { value, timestamp });
  }
  tiles();
}

function tiles() {
  const value = (name) => latest.get(name)?.value ?? NaN;
  const memory = value(USED) + value(FREE);
  const shown = [
    ["Utilisation", quantity(value(UTIL), "%"), ""],
    ["Temperature", quantity(value(TEMP), "°C"), ""],
    ["Power", quantity(value(POWER), "W"), ""],
    ["Memory", quantity(value(USED), "MiB"), `of ${quantity(memory, "MiB")}`],
    ["SM clock", quantity(value("DCGM_FI_DEV_SM_CLOCK"), "MHz"), ""],
    ["Last sample", ago(seen, Date.now()), recent(seen, Date.now())],
  ];
  const place = byId("latest");
  if (!place.childElementCount) {
    fill(
      place,
      shown.map(([name]) =>
        make("div", { class: "tile" }, make("p", {}, name), make("b"), make("span")),
      ),
    );
  }
  shown.forEach(([, text, under], at) => {
    say(place.children[at].querySelector("b"), text);
    say(place.children[at].querySelector("span"), under);
  });
}

async function problems(signal) {
  const since = Math.floor(Date.now() / 60_000) * 60_000 - PROBLEMS_MS;
  const found = await ask("fleet/health", { parameters: { start_time: rfc3339(since) }, signal });
  const mine = problemsOf(found).get(id);
  byId("problems").hidden = !mine;
  if (mine) fill(byId("problems"), wrongList(found.filter((gpu) => gpu.uuid === id)));
}

// Time

function current() {
  return readSpan(new URLSearchParams(location.search), Date.now());
}

function aggregate() {
  const asked = new URLSearchParams(location.search).get("agg");
  return Object.hasOwn(AGGREGATES, asked) ? asked : "mean";
}

function zoom(bounds) {
  if (!bounds) return;
  const [from, to] = [rfc3339(bounds.from), rfc3339(bounds.to)];
  remember({ from, to, span: null }, { step: true });
  dispatchEvent(new Event("changed"));
}

function controls() {
  for (const [name, { title }] of Object.entries(SPANS)) {
    const choose = () => {
      remember({ span: name, from: null, to: null }, { step: true });
      dispatchEvent(new Event("changed"));
    };
    byId("span").append(make("button", { type: "button", "data-span": name, onclick: choose }, title));
  }
  const shift = (part) => () => {
    const { from, to } = current();
    const by = (to - from) * part;
    zoom(brushed(from + by, Math.min(to + by, Date.now())));
  };
  const scale = (part) => () => {
    const { from, to } = current();
    const by = (to - from) * part;
    zoom(brushed(from + by, to - by));
  };
  byId("earlier").addEventListener("click", shift(-0.5));
  byId("later").addEventListener("click", shift(0.5));
  byId("closer").addEventListener("click", scale(0.25));
  byId("wider").addEventListener("click", scale(-0.5));
  const choice = byId("agg");
  fill(
    choice,
    Object.entries(AGGREGATES).map(([name, words]) => make("option", { value: name }, words)),
  );
  choice.addEventListener("change", () => {
    remember({ agg: choice.value === "mean" ? null : choice.value }, { step: true });
    dispatchEvent(new Event("changed"));
  });
  pressed();
}

function pressed() {
  const { span } = current();
  for (const button of byId("span").children) {
    button.setAttribute("aria-pressed", String(button.dataset.span === span));
  }
  byId("agg").value = aggregate();
}

async function draw(signal) {
  const { span, from, to } = current();
  const seconds = (to - from) / 1000;
  const step = stepFor(seconds, charts[0]?.place.clientWidth || 600);
  const metric = charts.flatMap((chart) => chart.what.metrics);
  const parameters = {
    start_time: rfc3339(from),
    end_time: rfc3339(to),
    step: `${step}s`,
    agg: aggregate(),
    metric,
  };
  const records = await ask("gpus/{}/telemetry", { parts: [id], parameters, signal });
  const gap = gapOf(records, step);
  for (const chart of charts) {
    chart.show(align(records, chart.what.metrics, gap), from / 1000, to / 1000);
  }
  const words = span ? `the last ${SPANS[span].title}` : `${moment(from)} to ${moment(to)}`;
  const empty = records.length ? "" : "; there is no sample in this time";
  say(byId("shown"), `${words}, in steps of ${duration(step)}${empty}`);
  same(parameters);
}

function same(parameters) {
  const json = address("gpus/{}/telemetry", [id], parameters);
  const csv = address("gpus/{}/telemetry", [id], { ...parameters, format: "csv" });
  fill(byId("api-links"), saved(json, "JSON", "telemetry.json"), saved(csv, "CSV", "telemetry.csv"));
  say(byId("api-curl"), `curl '${csv}'`);
}
