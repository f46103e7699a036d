// What is wrong with which GPU, as `/api/v1/fleet/health` says it.

import { link, make } from "./dom.js";
import { count, recent } from "./format.js";

const SHOWN = 50;
/** The worst first: when a host is cut off, its silent GPUs do not bury an error of another. */
const KINDS = { xid: "XID", ecc: "ECC", hot: "Hot", silent: "Silent" };
const ORDER = Object.keys(KINDS);

const NAMES = { hot: "temperature", xid: "XID errors", ecc: "ECC errors" };

/**
 * Say what is not known because GPUs do not measure it: the header `Telemq-Not-Measured`, such as
 * "xid=24, ecc=24", in words. No news of errors is good news only of GPUs that tell errors.
 */
export function unmeasured(header) {
  const told = [...(header ?? "").matchAll(/(\w+)=(\d+)/g)].map(
    ([, kind, gpus]) => `${NAMES[kind] ?? kind} of ${count(Number(gpus), "GPU")}`,
  );
  return told.length ? `Not known, because it is not measured: ${told.join(", ")}.` : "";
}

/** Give the problems of each GPU by its UUID. */
export function problemsOf(found) {
  return new Map(found.map((gpu) => [gpu.uuid, gpu.problems]));
}

/** Give the list, the worst and newest first; or that all is well. */
export function wrongList(found, now = Date.now()) {
  if (!found.length) {
    return make("p", { class: "good" }, "Nothing, as far as it is measured: no GPU is hot, tells of an error, or is silent.");
  }
  const rows = found
    .flatMap((gpu) => gpu.problems.map((problem) => ({ gpu, ...problem })))
    .sort(
      (one, other) =>
        ORDER.indexOf(one.kind) - ORDER.indexOf(other.kind) ||
        Date.parse(other.since) - Date.parse(one.since),
    );
  const list = make(
    "ul",
    { class: "wrong" },
    rows.slice(0, SHOWN).map(({ gpu, kind, detail, since }) =>
      make(
        "li",
        {},
        make("span", { class: `badge ${kind}` }, KINDS[kind] ?? kind),
        make(
          "a",
          { href: link("gpu", { id: gpu.uuid }), title: gpu.uuid },
          `${gpu.hostname} · GPU ${gpu.gpu_id}`,
        ),
        make("span", { class: "what" }, detail),
        make("time", { datetime: since, class: "hint" }, `since ${recent(Date.parse(since), now)}`),
      ),
    ),
  );
  const more = rows.length - SHOWN;
  return more > 0
    ? [list, make("p", { class: "hint" }, `and ${count(more, "more problem", "more problems")}`)]
    : list;
}
