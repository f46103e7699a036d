// Samples as they are stored, from /api/v1/live. It is read by fetch, not by EventSource, which can
// neither send a token nor say why it was refused.

import { address, request } from "./api.js";
import { Events } from "./sse.js";

const WAIT_MS = [1000, 2000, 5000, 10_000, 20_000];
/** The gateway sends a comment now and then; silence for so long means that it is gone. */
const SILENT_MS = 60_000;

/**
 * Follow samples until `close()`; a connection that breaks is made again where it ended.
 *
 * Nothing is asked for while the page is hidden.
 *
 * @param {{gpu?: string[], metric?: string[]}} parameters what to follow
 * @param {(samples: [string, string, string, number][]) => void} onSamples
 * @param {(state: "live"|"waiting"|"paused", reason: string) => void} onState
 */
export function follow(parameters, onSamples, onState) {
  let stop = new AbortController();
  let closed = false;
  let lastId = "";

  async function run() {
    let failures = 0;
    const mine = stop;
    while (!mine.signal.aborted) {
      let reason = "the connection ended";
      try {
        lastId = await read(mine.signal, () => (failures = 0));
      } catch (error) {
        reason = error.message;
      }
      if (mine.signal.aborted) return;
      onState("waiting", reason);
      const wait = WAIT_MS[Math.min(failures++, WAIT_MS.length - 1)];
      await pause(wait * (0.75 + Math.random() / 2), mine.signal);
    }
  }

  async function read(signal, onAlive) {
    const events = new Events();
    events.lastId = lastId;
    const silent = new AbortController();
    let timer = setTimeout(() => silent.abort(), SILENT_MS);
    try {
      const response = await request(address("live", [], parameters), {
        signal: AbortSignal.any([signal, silent.signal]),
        headers: { Accept: "text/event-stream", ...(lastId && { "Last-Event-ID": lastId }) },
      });
      onState("live", "");
      const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
      for (;;) {
        const { done, value } = await reader.read();
        if (done) return events.lastId;
        clearTimeout(timer);
        timer = setTimeout(() => silent.abort(), SILENT_MS);
        onAlive();
        for (const { event, data } of events.push(value)) {
          if (event === "samples") onSamples(JSON.parse(data).samples);
        }
        lastId = events.lastId;
      }
    } finally {
      clearTimeout(timer);
    }
  }

  function onVisibility() {
    if (closed) return;
    stop.abort();
    if (document.hidden) {
      onState("paused", "this tab is hidden");
    } else {
      stop = new AbortController();
      run();
    }
  }

  document.addEventListener("visibilitychange", onVisibility);
  run();
  return {
    close() {
      closed = true;
      document.removeEventListener("visibilitychange", onVisibility);
      stop.abort();
    },
  };
}

/** Wait, or until the signal. */
function pause(ms, signal) {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, ms);
    signal.addEventListener("abort", () => (clearTimeout(timer), resolve()), { once: true });
  });
}
