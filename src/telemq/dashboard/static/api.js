// Asking the gateway. A token, if it wants one, is kept for this tab only.

const KEPT = "telemq-token";
let asking = null;
let askForToken = null;

/** An error that says what to do: the detail of the gateway's problem document, or our own words. */
export class Problem extends Error {
  constructor(status, title, detail) {
    super(detail);
    this.status = status;
    this.title = title;
  }
}

/** Give the token of this tab, or an empty string. */
export function token() {
  try {
    return sessionStorage.getItem(KEPT) ?? "";
  } catch {
    return "";
  }
}

/** Keep a token for this tab; an empty one forgets it. */
export function keepToken(text) {
  if (text) sessionStorage.setItem(KEPT, text);
  else sessionStorage.removeItem(KEPT);
}

/** Say how a person is asked for a token: a function that gives a promise of one. */
export function onTokenWanted(ask) {
  askForToken = ask;
}

/**
 * Give the address of an API path: `address("gpus/{}/telemetry", [id], {metric: ["A", "B"]})`.
 *
 * Relative to the page, so that a gateway may stand below a path of another server.
 */
export function address(path, parts = [], parameters = {}) {
  let at = 0;
  const filled = path.replaceAll("{}", () => encodeURIComponent(parts[at++]));
  const url = new URL(`api/v1/${filled}`, new URL(".", location.href));
  for (const [name, value] of Object.entries(parameters)) {
    for (const one of [value].flat()) {
      if (one !== null && one !== undefined && one !== "") url.searchParams.append(name, one);
    }
  }
  return url;
}

/**
 * Request an address with the token; after a 401 the person is asked for another one, once for all
 * requests that wait for it.
 *
 * @throws {Problem} for every answer that is not a success, and when there is none (status 0)
 */
export async function request(url, { signal, headers = {} } = {}) {
  for (;;) {
    const used = token();
    let response;
    try {
      response = await fetch(url, {
        signal,
        headers: { ...headers, ...(used && { Authorization: `Bearer ${used}` }) },
        cache: "no-store",
        credentials: "same-origin",
      });
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new Problem(
        0,
        "The gateway does not answer",
        "It is not running, or the network is down. Start it with: telemq up",
      );
    }
    if (response.ok) return response;
    if (response.status === 401 && askForToken) {
      // Others wait for the same token, and another request may have got one meanwhile.
      if (token() === used) {
        asking ??= askForToken(Boolean(used)).finally(() => (asking = null));
        await asking;
      }
      continue;
    }
    throw await problemOf(response);
  }
}

/** Ask for JSON. */
export async function ask(path, options) {
  return (await askWithHeaders(path, options)).found;
}

/** Ask for JSON, and for the headers that came with it. */
export async function askWithHeaders(path, { parts, parameters, signal } = {}) {
  const response = await request(address(path, parts, parameters), {
    signal,
    headers: { Accept: "application/json" },
  });
  return { found: await response.json(), headers: response.headers };
}

async function problemOf(response) {
  try {
    const { title, detail } = await response.json();
    return new Problem(response.status, title ?? `Status ${response.status}`, detail ?? "");
  } catch {
    return new Problem(response.status, `Status ${response.status}`, response.statusText);
  }
}
