// The samples themselves, newest first, a page at a time by the API's cursors.

import { address, request } from "./api.js";
import { byId, fill, make } from "./dom.js";
import { metricTitle, moment, quantity } from "./format.js";
import { saved } from "./save.js";
import { notice } from "./shell.js";
import { rfc3339 } from "./span.js";

const ROWS = 25;

export class RawTable {
  #next = null;
  #rows = make("tbody");
  #asked = 0;

  /** @param {() => {from: number, to: number}} bounds gives the time that is shown */
  constructor(id, names, known, bounds) {
    Object.assign(this, { id, known, bounds });
    fill(
      byId("raw-metric"),
      make("option", { value: "" }, "every metric"),
      [...names].sort().map((name) => make("option", { value: name }, metricTitle(name))),
    );
    byId("raw-metric").addEventListener("change", () => this.again());
    byId("older").addEventListener("click", () => this.#load(this.#next, false));
    const heads = ["Time", "Metric", "Value", "Namespace", "Pod", "Container"];
    fill(
      byId("raw"),
      make(
        "div",
        { class: "scroll", tabindex: "0", role: "region", "aria-label": "Table: raw samples" },
        make(
          "table",
          {},
          make("caption", { class: "unseen" }, "Raw samples, newest first"),
          make(
            "thead",
            {},
            make(
              "tr",
              {},
              heads.map((head) =>
                make("th", { scope: "col", class: head === "Value" && "number" }, head),
              ),
            ),
          ),
          this.#rows,
        ),
      ),
    );
    this.again();
  }

  /** Show the newest samples of the time that is shown now. */
  again() {
    const { from, to } = this.bounds();
    const window = {
      start_time: rfc3339(from),
      end_time: rfc3339(to),
      metric: byId("raw-metric").value,
    };
    const url = (more) => address("gpus/{}/telemetry", [this.id], { ...window, ...more });
    fill(
      byId("raw-links"),
      saved(url({}), "JSON", "samples.json"),
      saved(url({ format: "csv" }), "CSV", "samples.csv"),
    );
    this.#load(url({ order: "desc", limit: String(ROWS) }), true);
  }

  async #load(url, anew) {
    const mine = ++this.#asked;
    try {
      const response = await request(url, { headers: { Accept: "application/json" } });
      const records = await response.json();
      if (mine !== this.#asked) return;
      this.#next = nextOf(response.headers.get("Link"), response.url);
      byId("older").hidden = !this.#next;
      const rows = records.map((record) => this.#row(record));
      if (!anew) this.#rows.append(...rows);
      else fill(this.#rows, rows.length ? rows : none());
      notice("raw", null);
    } catch (error) {
      notice("raw", error);
    }
  }

  #row(record) {
    const { unit } = this.known.get(record.metric_name) ?? {};
    return make(
      "tr",
      {},
      make("td", {}, make("time", { datetime: record.timestamp }, moment(record.timestamp))),
      make("td", { title: record.metric_name }, metricTitle(record.metric_name)),
      make("td", { class: "number" }, quantity(record.value, unit)),
      make("td", {}, record.namespace),
      make("td", {}, record.pod),
      make("td", {}, record.container),
    );
  }
}

function none() {
  return make("tr", {}, make("td", { colspan: "6", class: "hint" }, "No sample in this time."));
}

/** Read where the next page is; null at the end. */
function nextOf(header, base) {
  const found = /<([^>]*)>\s*;[^,]*\brel="?next"?/i.exec(header ?? "");
  return found ? new URL(found[1], base) : null;
}
