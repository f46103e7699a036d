// What every page has: the theme, the token's dialog, notices, and how something is asked for again
// and again.

import { Problem, keepToken, onTokenWanted, token } from "./api.js";
import { byId, make, say } from "./dom.js";

const THEME = "telemq-theme";
const SYSTEM = matchMedia("(prefers-color-scheme: dark)");
const themeListeners = new Set();

/** Give the theme that is shown now: "light" or "dark". */
export function theme() {
  return document.documentElement.dataset.theme ?? (SYSTEM.matches ? "dark" : "light");
}

/** Call when the theme changes: a canvas does not follow it by itself. */
export function onTheme(listener) {
  themeListeners.add(listener);
}

/** Give a colour of the style sheet, such as "--text", for a canvas. */
export function styled(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

/** Start what every page has; called once. */
export function start() {
  const button = byId("theme");
  const show = () => {
    const other = theme() === "dark" ? "light" : "dark";
    button.setAttribute("aria-label", `Use the ${other} theme`);
    button.title = `Use the ${other} theme`;
    say(button, theme() === "dark" ? "☀" : "☾");
    for (const listener of themeListeners) listener();
  };
  button.addEventListener("click", () => {
    const next = theme() === "dark" ? "light" : "dark";
    document.documentElement.dataset.theme = next;
    try {
      localStorage.setItem(THEME, next);
    } catch {
      // Storage is forbidden: it holds for this page.
    }
    show();
  });
  SYSTEM.addEventListener("change", show);
  show();
  startToken();
}

function startToken() {
  const forget = byId("forget");
  forget.hidden = !token();
  forget.addEventListener("click", () => {
    keepToken("");
    location.reload();
  });
  onTokenWanted(
    (refused) =>
      new Promise((resolve) => {
        const dialog = byId("token");
        const field = byId("token-text");
        say(byId("token-error"), refused ? "That token is not accepted, or not any more." : "");
        field.value = "";
        dialog.querySelector("form").onsubmit = (event) => {
          event.preventDefault();
          keepToken(field.value.trim());
          forget.hidden = false;
          dialog.close();
          resolve();
        };
        dialog.oncancel = (event) => event.preventDefault(); // there is nothing to see without one
        dialog.showModal();
        field.focus();
      }),
  );
}

/** Show a notice, or take it away (null); one with the same name takes the place of the last. */
export function notice(name, problem, kind = "bad") {
  const place = byId("notices");
  const old = place.querySelector(`[data-name="${name}"]`);
  if (!problem) {
    old?.remove();
    return;
  }
  const title = problem instanceof Problem ? problem.title : "This page failed";
  const text = `${title}: ${problem.message}`;
  if (old?.dataset.text === text) return;
  const made = make(
    "p",
    { class: `notice ${kind}`, "data-name": name, "data-text": text },
    make("strong", {}, title),
    " ",
    problem.message,
    problem.status === 403 ? " Forget the token above to give another." : null,
  );
  if (old) old.replaceWith(made);
  else place.append(made);
}

/** Show what the live connection does, in the bar. */
export function showLive(state, reason = "") {
  const place = byId("live");
  place.hidden = false;
  place.dataset.state = state;
  place.title = reason;
  say(place, { live: "Live", waiting: "Reconnecting", paused: "Paused" }[state]);
}

/**
 * Do something now and every so many ms while the page is seen, never twice at once; what it throws
 * becomes a notice, and a success takes that away.
 *
 * @param {string} name of the notice
 * @param {(signal: AbortSignal) => Promise<void>} work
 * @param {() => number} everyMs
 * @returns {{again: () => void}} does it at once, and lets what is under way go
 */
export function repeat(name, work, everyMs) {
  let timer = null;
  let running = null;

  async function run() {
    clearTimeout(timer);
    running?.abort();
    const mine = new AbortController();
    running = mine;
    try {
      await work(mine.signal);
      if (!mine.signal.aborted) notice(name, null);
    } catch (error) {
      if (mine.signal.aborted) return;
      notice(name, error);
      if (!(error instanceof Problem)) console.error(error);
    }
    if (mine.signal.aborted) return;
    running = null;
    timer = setTimeout(() => !document.hidden && run(), everyMs());
  }

  document.addEventListener("visibilitychange", () => {
    if (!document.hidden && !running) run();
  });
  run();
  return { again: run };
}
