// The fleet as a table: what the map shows, for a screen reader and for who wants to sort.

import { fill, link, make, remember } from "./dom.js";
import { VIEWS } from "./fleetmodel.js";
import { ago, count, quantity } from "./format.js";

const ROWS = 100;

const COLUMNS = [
  { name: "gpu", head: "GPU", text: (gpu) => `${gpu.hostname} · GPU ${gpu.gpu_id}` },
  ...Object.entries(VIEWS).map(([name, { title, unit }]) => ({
    name,
    head: title,
    unit,
    value: (fleet, at) => fleet.value(name, at),
  })),
  { name: "pods", head: "Pods", text: (gpu) => podsOf(gpu) },
  { name: "model", head: "Model", text: (gpu) => gpu.model_name },
  { name: "seen", head: "Last seen", value: (fleet, at) => fleet.seen[at] },
];
const order = new Intl.Collator("en", { numeric: true });

/** Fill `place` with the table; its order and page are in the URL. */
export function fleetTable(place, fleet, selection, problems) {
  const query = new URLSearchParams(location.search);
  const [name, down] = (query.get("sort") ?? "gpu").split("-");
  const column = COLUMNS.find((one) => one.name === name) ?? COLUMNS[0];
  const sorted = sort(fleet, selection.numbers, column, down === "down");
  const pages = Math.ceil(sorted.length / ROWS);
  const page = Math.min(pages, Math.max(1, Math.floor(Number(query.get("page")) || 1)));
  const again = () => fleetTable(place, fleet, selection, problems);
  const shown = sorted.slice((page - 1) * ROWS, page * ROWS);
  const focused = place.contains(document.activeElement) && document.activeElement.dataset.name;
  fill(
    place,
    make(
      "div",
      { class: "scroll", tabindex: "0", role: "region", "aria-label": "Table: GPUs" },
      make(
        "table",
        {},
        make("caption", { class: "unseen" }, `GPUs by ${column.head}, page ${page} of ${pages}`),
        make("thead", {}, make("tr", {}, COLUMNS.map((one) => head(one, column, down, again)))),
        make("tbody", {}, shown.map((at) => row(fleet, at, problems))),
      ),
    ),
    pages > 1 ? pager(page, pages, sorted.length, again) : null,
  );
  if (focused) place.querySelector(`[data-name="${focused}"]`)?.focus();
}

function sort(fleet, numbers, column, down) {
  const compare = column.text
    ? (one, other) => order.compare(column.text(fleet.gpus[one]), column.text(fleet.gpus[other]))
    : (one, other) => byNumber(column.value(fleet, one), column.value(fleet, other), down);
  const sorted = [...numbers].sort((one, other) => (down ? -1 : 1) * compare(one, other));
  return sorted;
}

/** What is not known comes last, whichever way. */
function byNumber(one, other, down) {
  if (Number.isNaN(one) || Number.isNaN(other)) {
    return (down ? -1 : 1) * (Number(Number.isNaN(one)) - Number(Number.isNaN(other)));
  }
  return one - other;
}

function head(one, sorted, down, again) {
  const mine = one === sorted;
  const next = mine ? (down === "down" ? one.name : `${one.name}-down`) : first(one);
  return make(
    "th",
    {
      scope: "col",
      class: one.unit && "number",
      "aria-sort": mine && (down === "down" ? "descending" : "ascending"),
    },
    make(
      "button",
      {
        type: "button",
        class: "sort",
        "data-name": `sort-${one.name}`,
        onclick: () => {
          remember({ sort: next, page: null });
          again();
        },
      },
      one.head,
    ),
  );
}

/** Numbers are asked for because of their largest. */
function first(column) {
  return column.unit ? `${column.name}-down` : column.name;
}

function row(fleet, at, problems) {
  const gpu = fleet.gpus[at];
  const wrong = problems.get(gpu.uuid) ?? [];
  return make(
    "tr",
    {},
    make(
      "th",
      { scope: "row" },
      make("a", { href: link("gpu", { id: gpu.uuid }), title: gpu.uuid }, COLUMNS[0].text(gpu)),
      wrong.map(({ kind, detail }) =>
        make("span", { class: `badge ${kind}`, title: detail }, kind),
      ),
    ),
    COLUMNS.slice(1, -3).map((column) =>
      make("td", { class: "number" }, quantity(column.value(fleet, at), column.unit)),
    ),
    make("td", {}, podsOf(gpu)),
    make("td", {}, gpu.model_name),
    make("td", {}, ago(fleet.seen[at], Date.now())),
  );
}

function podsOf(gpu) {
  return (gpu.pods ?? []).map((pod) => `${pod.namespace}/${pod.pod}`).join(", ");
}

function pager(page, pages, rows, again) {
  const go = (to, name, words) =>
    make(
      "button",
      {
        type: "button",
        "data-name": name,
        disabled: to < 1 || to > pages,
        onclick: () => {
          remember({ page: to === 1 ? null : String(to) });
          again();
        },
      },
      words,
    );
  return make(
    "div",
    { class: "row pager" },
    go(page - 1, "before", "Before"),
    make("span", {}, `Page ${page} of ${pages}, ${count(rows, "GPU")}`),
    go(page + 1, "next", "Next"),
  );
}
