// Making elements. What comes from the database is only ever text: there is no way here to give an
// element HTML.

/**
 * Make an element: `make("a", {href: "gpu", class: "row"}, "text", otherElement)`.
 *
 * A property that is a function listens to the event of its name (`onclick`); null, undefined and
 * false leave an attribute away; `style` sets custom properties and styles one by one, which a
 * policy without inline styles allows.
 */
export function make(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === null || value === undefined || value === false) continue;
    if (typeof value === "function") element.addEventListener(name.slice(2), value);
    else if (name === "style") {
      for (const [key, text] of Object.entries(value)) element.style.setProperty(key, text);
    } else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return element;
}

/** Find an element of the page by its id. */
export function byId(id) {
  return document.getElementById(id);
}

/** Put children in place of what an element has. */
export function fill(element, ...children) {
  element.replaceChildren(...children.flat().filter((child) => child !== null));
}

/** Set an element's text, if it is another: a screen reader is not told the same twice. */
export function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** Give an address of a page here with these parameters; empty ones are left away. */
export function link(page, parameters = {}) {
  const query = new URLSearchParams(Object.entries(parameters).filter(([, value]) => value));
  const text = query.toString();
  return text ? `${page}?${text}` : page;
}

/** Change parameters of this page's own URL, so that it can be shared and reloaded. */
export function remember(parameters, { step = false } = {}) {
  const query = new URLSearchParams(location.search);
  for (const [name, value] of Object.entries(parameters)) {
    if (value === null || value === "") query.delete(name);
    else query.set(name, value);
  }
  const text = query.toString();
  const url = text ? `?${text}` : location.pathname;
  if (step) history.pushState(null, "", url);
  else history.replaceState(null, "", url);
}

/** A table: its heads, and how a row becomes cells; numbers stand on the right. */
export function table(caption, columns, rows) {
  return make(
    "div",
    { class: "scroll", tabindex: "0", role: "region", "aria-label": `Table: ${caption}` },
    make(
      "table",
      {},
      make("caption", { class: "unseen" }, caption),
      make(
        "thead",
        {},
        make(
          "tr",
          {},
          columns.map(({ head, number }) =>
            make("th", { scope: "col", class: number && "number" }, head),
          ),
        ),
      ),
      make(
        "tbody",
        {},
        rows.map((row) =>
          make(
            "tr",
            {},
            columns.map(({ cell, number }) => make("td", { class: number && "number" }, cell(row))),
          ),
        ),
      ),
    ),
  );
}
