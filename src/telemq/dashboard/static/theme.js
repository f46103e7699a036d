// Before anything is painted: the theme that was chosen in this browser, if one was.
// A classic script, because a module would come after the first paint.
(() => {
  let chosen = null;
  try {
    chosen = localStorage.getItem("telemq-theme");
  } catch {
    // Storage is forbidden: the system's theme it is.
  }
  if (chosen === "light" || chosen === "dark") document.documentElement.dataset.theme = chosen;
})();
