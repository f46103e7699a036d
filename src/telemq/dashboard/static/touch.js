// A brush by finger: uPlot's own hears only a mouse.

/** Pixels that a finger moves sideways before it is a brush, and not a tap. */
const BRUSHES_FROM = 8;

/**
 * Let a finger that moves sideways over a plot select as a mouse does; up and down still scrolls.
 *
 * It needs `touch-action: pan-y pinch-zoom` on what the plot is drawn over.
 */
export function brushByFinger(plot) {
  let from = null;
  let brushes = false;

  const at = (event) => {
    const { left, width } = plot.over.getBoundingClientRect();
    return Math.min(width, Math.max(0, event.clientX - left));
  };
  const select = (to, tell) => {
    const [left, width] = [Math.min(from, to), Math.abs(to - from)];
    plot.setSelect({ left, width, top: 0, height: plot.over.clientHeight }, tell);
  };
  const end = (event, tell) => {
    if (brushes && event.isPrimary) select(tell ? at(event) : from, tell);
    if (event.isPrimary) [from, brushes] = [null, false];
  };

  plot.over.addEventListener("pointerdown", (event) => {
    if (event.pointerType === "touch" && event.isPrimary) [from, brushes] = [at(event), false];
  });
  plot.over.addEventListener("pointermove", (event) => {
    if (from === null || !event.isPrimary) return;
    const to = at(event);
    brushes ||= Math.abs(to - from) >= BRUSHES_FROM;
    if (!brushes) return;
    plot.setCursor({ left: to, top: plot.over.clientHeight / 2 });
    select(to, false);
  });
  plot.over.addEventListener("pointerup", (event) => end(event, true));
  // The browser took it for scrolling.
  plot.over.addEventListener("pointercancel", (event) => end(event, false));
}
