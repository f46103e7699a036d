// The pipeline: brokers, streams, and whether every row is accounted for.

import { Problem, ask } from "./api.js";
import { Chart } from "./chart.js";
import { byId, fill, make, say, table } from "./dom.js";
import { count, duration, number, quantity, short } from "./format.js";
import { History, mostOf, sumOf } from "./history.js";
import { notice, onTheme, repeat, showLive, start } from "./shell.js";

const STATUS_EVERY_MS = 2000;
/** Every row of every stream is counted for it: not something to ask for every second. */
const INTEGRITY_EVERY_MS = 60_000;
/** What the charts show: since the page was opened, at most and at least. */
const SHOWN_S = 600;
const SHORTEST_S = 60;

const history = new History(SHOWN_S / (STATUS_EVERY_MS / 1000));

start();
const rates = new Chart({
  title: "Records a second",
  unit: "records/s",
  lines: [{ title: "into brokers" }, { title: "out of brokers" }, { title: "stored" }],
});
const depth = new Chart({
  title: "In the queue",
  unit: "records",
  lines: [{ title: "ready" }, { title: "leased to collectors" }],
});
byId("charts").append(rates.element, depth.element);
onTheme(() => [rates, depth].forEach((chart) => chart.recolour()));

repeat(
  "status",
  async (signal) => {
    const { brokers, store } = await ask("status", { signal }).catch((error) => {
      showLive("waiting", error.message);
      throw error;
    });
    notice("store", store.reachable ? null : new Problem(503, "Postgres", store.fault));
    tiles(brokers, store);
    fill(byId("brokers"), brokers.length ? brokerCards(brokers) : noBroker());
    if (store.reachable) dead(store.dead_letters);
    draw(brokers, store);
    showLive("live");
  },
  () => STATUS_EVERY_MS,
);
repeat(
  "integrity",
  async (signal) => {
    const report = await ask("integrity", { signal });
    fill(byId("verdict"), ...verdict(report));
    streams(report);
  },
  () => INTEGRITY_EVERY_MS,
);

function tiles(brokers, store) {
  const answering = brokers.filter((broker) => broker.reachable).length;
  const queued = sumOf(brokers, "ready_records");
  const leased = sumOf(brokers, "leased_records");
  const shown = [
    ["Stored", `${short(store.records_per_s ?? NaN)} /s`, "records in Postgres"],
    ["Lag", duration(store.lag_s ?? NaN), "since newest sample"],
    ["In the queue", short(queued ?? NaN), leased === null ? "" : `and ${short(leased)} leased`],
    ["Oldest in the queue", duration(mostOf(brokers, "oldest_s") ?? NaN), "waits for a collector"],
    ["Redelivered", short(sumOf(brokers, "redelivered") ?? NaN), "since brokers started"],
    ["Dead letters", number(store.dead_letters ?? NaN), "with their reasons"],
    ["Brokers", brokers.length ? `${answering} of ${brokers.length}` : "–", "answer"],
  ];
  const place = byId("totals");
  if (!place.childElementCount) {
    fill(
      place,
      shown.map(([name]) =>
        make("div", { class: "tile" }, make("p", {}, name), make("b"), make("span")),
      ),
    );
  }
  shown.forEach(([, value, under], at) => {
    say(place.children[at].querySelector("b"), value);
    say(place.children[at].querySelector("span"), under);
  });
}

function draw(brokers, store) {
  const now = Date.now() / 1000;
  history.add(now, [
    sumOf(brokers, "in_per_s"),
    sumOf(brokers, "out_per_s"),
    store.records_per_s ?? null,
    sumOf(brokers, "ready_records"),
    sumOf(brokers, "leased_records"),
  ]);
  const from = Math.min(now - SHORTEST_S, Math.max(now - SHOWN_S, history.since));
  rates.show(history.columns(0, 1, 2), from, now);
  depth.show(history.columns(3, 4), from, now);
}

function brokerCards(brokers) {
  return make("div", { class: "brokers" }, brokers.map(brokerCard));
}

function brokerCard(broker) {
  const [kind, words] = !broker.reachable
    ? ["bad", "silent"]
    : broker.draining
      ? ["warn", "draining"]
      : ["fine", "answers"];
  return make(
    "article",
    { class: "broker" },
    make(
      "h3",
      {},
      broker.address.replace(/^https?:\/\//, ""),
      make("span", { class: `badge ${kind}` }, words),
    ),
    broker.reachable ? known(broker) : make("p", { class: "error" }, unreachable(broker)),
  );
}

function unreachable({ fault }) {
  return `${fault || "no answer"}: what it held is published again by its streamers`;
}

function known(broker) {
  const parts = [
    ["ready", broker.ready_records],
    ["leased", broker.leased_records],
    ["granted", broker.granted_records],
  ];
  const share = (records) => `${(100 * records) / Math.max(1, broker.capacity_records)}%`;
  const facts = [
    ["Ready", short(broker.ready_records)],
    ["Leased", short(broker.leased_records)],
    ["Oldest", duration(broker.oldest_s ?? NaN)],
    ["In", `${short(broker.in_per_s ?? NaN)} /s`],
    ["Out", `${short(broker.out_per_s ?? NaN)} /s`],
    ["Up for", duration(broker.uptime_s ?? NaN)],
    ["Producers", number(broker.producers)],
    ["Consumers", number(broker.consumers)],
    ["In trouble", number(broker.peers_in_trouble ?? NaN)],
    ["Waiting", number(broker.producers_waiting ?? NaN)],
    ["Redelivered", short(broker.redelivered)],
    ["Buried", short(broker.dead)],
  ];
  return [
    make(
      "div",
      { class: "room", "aria-hidden": "true" },
      parts.map(([name, records]) => make("i", { class: name, style: { width: share(records) } })),
    ),
    make(
      "p",
      { class: "hint" },
      `${quantity(100 * broker.room_used, "%")} of its room for ${short(broker.capacity_records)} records in use`,
    ),
    make(
      "dl",
      { class: "facts" },
      facts.map(([name, value]) => make("div", {}, make("dt", {}, name), make("dd", {}, value))),
    ),
  ];
}

function noBroker() {
  return make(
    "div",
    { class: "empty" },
    make("p", {}, "This gateway was not told where brokers are. Start it with their ops addresses:"),
    make("pre", {}, make("code", {}, "telemq api --broker-ops 127.0.0.1:9601")),
  );
}

function verdict(report) {
  const rows = report.streams.reduce((sum, stream) => sum + stream.rows, 0);
  const problems = [
    ...report.problems,
    ...report.streams.flatMap((one) => one.problems.map((text) => `${one.stream_id}: ${text}`)),
  ];
  if (report.complete) {
    const words = `${count(report.stream_count, "stream")}, ${number(rows)} rows: each is stored exactly once, in flight, or kept as a dead letter.`;
    return [
      make("span", { class: "dot fine" }),
      make("div", {}, make("b", {}, "Nothing lost, nothing doubled"), make("p", { class: "hint" }, words)),
    ];
  }
  return [
    make("span", { class: "dot bad" }),
    make(
      "div",
      {},
      make("b", {}, `${count(problems.length, "problem")} in ${count(report.damaged_count, "stream")}`),
      make("p", { class: "hint" }, "The same as telemq verify says, from the database alone."),
      make("ul", {}, problems.slice(0, 20).map((text) => make("li", {}, text))),
    ),
  ];
}

function streams(report) {
  const place = byId("streams");
  if (!report.streams.length) {
    fill(
      place,
      make(
        "div",
        { class: "empty" },
        make("p", {}, "No stream has been published yet. Start one with:"),
        make("pre", {}, make("code", {}, "telemq stream csv dcgm_metrics.csv")),
      ),
    );
    return;
  }
  const more = report.stream_count - report.streams.length;
  say(byId("streams-note"), more > 0 ? `and ${count(more, "more stream")}` : "");
  const columns = [
    { head: "Stream", cell: (one) => one.stream_id },
    { head: "Reserved", number: true, cell: (one) => number(one.next_row ?? NaN) },
    { head: "Stored", number: true, cell: (one) => number(one.stored) },
    { head: "Rejected", number: true, cell: (one) => number(one.rejected) },
    { head: "In flight", number: true, cell: (one) => number(one.lease_rows) },
    { head: "Batches", number: true, cell: (one) => number(one.batches) },
    {
      head: "Verdict",
      cell: (one) =>
        one.problems.length
          ? make("span", { class: "badge bad" }, count(one.problems.length, "problem"))
          : make("span", { class: "badge fine" }, "whole"),
    },
  ];
  fill(place, table("Streams", columns, report.streams));
}

function dead(letters) {
  const place = byId("dead");
  if (!letters) {
    fill(place, make("p", { class: "good" }, "None: every record that came could be stored."));
    return;
  }
  fill(
    place,
    make("p", {}, `${count(letters, "dead letter")}: what could not be stored, kept with its reason. Look at them, and try them again:`),
    make("pre", {}, make("code", {}, "telemq dead list\ntelemq dead retry --help")),
  );
}
