// Runs before the first paint: no flash of the other theme, nor of what is for browsers without scripts.
(() => {
  const root = document.documentElement;
  root.classList.add("js");
  try {
    const theme = localStorage.getItem("irs.theme");
    if (theme) root.dataset.theme = theme;
  } catch {
    // Storage is forbidden: the system's theme it is.
  }
})();
