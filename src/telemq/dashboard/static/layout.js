// Where each GPU of the heat map is: a host is a row of cells, and rows fill columns from the top,
// as the names in a directory listing do. Pure: sizes are CSS pixels.

/** Sizes of a cell that are tried, the largest first. */
const CELLS = [36, 30, 26, 22, 18, 16, 14, 12, 10, 9, 8, 7, 6, 5];
/** Cells smaller than this stand without their hosts' names: there is no room to write them. */
const NAMED = 12;
/** Between columns of hosts, with names and without. */
const BETWEEN = [22, 10];
/** Hosts that stand below each other before there is a second column. */
const ROWS = 4;

/**
 * Lay out hosts that have so many GPUs each.
 *
 * Takes the largest cell with which all of them fit into `height`; when none does, the smallest, and
 * the map is taller. A host with more GPUs than a row has room for takes several lines.
 *
 * @param {number[]} counts GPUs of each host
 * @param {number} nameWidth room for the longest host's name, at sizes that have names
 */
export function layOut(counts, width, height, nameWidth = 0) {
  const widest = counts.reduce((most, count) => Math.max(most, count), 1);
  let found = null;
  for (const cell of CELLS) {
    found = fit(counts.length, widest, cell, width, cell >= NAMED ? nameWidth : 0);
    if (found && found.height <= height) return found;
  }
  return found ?? fit(counts.length, widest, CELLS.at(-1), Infinity, 0);
}

function fit(hosts, widest, cell, width, name) {
  const perLine = Math.min(widest, Math.floor((width - name) / cell));
  if (perLine < Math.min(widest, 8)) return null;
  const lines = Math.ceil(widest / perLine);
  const block = name + perLine * cell;
  const between = BETWEEN[cell >= NAMED ? 0 : 1];
  const most = Number.isFinite(width)
    ? Math.max(1, Math.floor((width + between) / (block + between)))
    : 1;
  const rows = Math.max(Math.ceil(hosts / most), Math.min(hosts, ROWS), 1);
  const columns = Math.max(1, Math.ceil(hosts / rows));
  const row = lines * cell + (lines > 1 || cell >= NAMED ? 4 : 2);
  return {
    cell,
    gap: cell >= NAMED ? 2 : 1,
    name,
    perLine,
    lines,
    row,
    rows,
    columns,
    column: block + between,
    width: columns * (block + between) - between,
    height: rows * row,
  };
}

/** Give the corner of a host's row, where its name stands if there is room for names. */
export function rowAt(layout, host) {
  return {
    x: Math.floor(host / layout.rows) * layout.column,
    y: (host % layout.rows) * layout.row,
  };
}

/** Give the corner of a cell: the GPU `place` of `host`, both counted from 0. */
export function cellAt(layout, host, place) {
  const { x, y } = rowAt(layout, host);
  return {
    x: x + layout.name + (place % layout.perLine) * layout.cell,
    y: y + Math.floor(place / layout.perLine) * layout.cell,
  };
}

/** Give which cell is at a point, or null. A host's name belongs to no cell. */
export function hit(layout, counts, x, y) {
  if (x < 0 || y < 0 || y >= layout.height) return null;
  const column = Math.floor(x / layout.column);
  const row = Math.floor(y / layout.row);
  const host = column * layout.rows + row;
  const along = Math.floor((x - column * layout.column - layout.name) / layout.cell);
  const line = Math.floor((y - row * layout.row) / layout.cell);
  if (column >= layout.columns || along < 0 || along >= layout.perLine) return null;
  const place = line * layout.perLine + along;
  return line < layout.lines && place < (counts[host] ?? 0) ? { host, place } : null;
}

/**
 * Give where a key leads from a cell; the same cell where there is no way on.
 *
 * Left and right go on to the column beside; up and down go from host to host. Home and End are a
 * host's first and last GPU, with Ctrl the map's; page keys go ten hosts.
 */
export function move(layout, counts, { host, place }, key, ctrl = false) {
  const last = counts.length - 1;
  const at = (to, where) => {
    const kept = Math.min(last, Math.max(0, to));
    return { host: kept, place: Math.min(Math.max(0, where), counts[kept] - 1) };
  };
  switch (key) {
    case "ArrowLeft":
      if (place > 0) return at(host, place - 1);
      return host >= layout.rows ? at(host - layout.rows, Infinity) : { host, place };
    case "ArrowRight":
      if (place < counts[host] - 1) return at(host, place + 1);
      return host + layout.rows <= last ? at(host + layout.rows, 0) : { host, place };
    case "ArrowUp":
      return place >= layout.perLine ? at(host, place - layout.perLine) : at(host - 1, place);
    case "ArrowDown":
      return place + layout.perLine < counts[host]
        ? at(host, place + layout.perLine)
        : at(host + 1, place % layout.perLine);
    case "PageUp":
      return at(host - 10, place);
    case "PageDown":
      return at(host + 10, place);
    case "Home":
      return at(ctrl ? 0 : host, 0);
    case "End":
      return at(ctrl ? last : host, Infinity);
    default:
      return { host, place };
  }
}
