// @ts-check
// The tiles: made in slices, settled within a budget of each frame, walked by keys as one tab stop; pictures only of
// those in sight, from the file at hand or from the record.

import { state, tell } from "./state.js";
import { answer, element, fault, icon, percent, root } from "./words.js";

const SLICE_MS = 8;
const grid = /** @type {HTMLElement} */ (document.getElementById("grid"));
const groups = /** @type {HTMLElement} */ (document.getElementById("groups"));

/** @type {Map<string, HTMLElement>} tiles by the item's key */
export const cells = new Map();
/** @type {Map<string, import("./state.js").Item>} what is to be drawn */
const dirty = new Map();
let scheduled = false;

/** Draw items soon. @param {import("./state.js").Item[]} items */
export function draw(items) {
  for (const item of items) dirty.set(item.key, item);
  if (!scheduled && dirty.size) {
    scheduled = true;
    frame(slice);
  }
}

/** A hidden page has no frames, but its tiles settle. @param {() => void} run */
function frame(run) {
  if (document.visibilityState === "hidden") setTimeout(run, 50);
  else requestAnimationFrame(run);
}

function slice() {
  const end = performance.now() + SLICE_MS;
  const fresh = document.createDocumentFragment();
  for (const [key, item] of dirty) {
    dirty.delete(key);
    const cell = cells.get(key) ?? make(item, fresh);
    settle(cell, item);
    if (performance.now() > end) break;
  }
  grid.append(fresh);
  scheduled = dirty.size > 0;
  if (scheduled) frame(slice);
  tell("drawn", scheduled);
}

/** @param {import("./state.js").Item} item @param {DocumentFragment} fresh */
function make(item, fresh) {
  const cell = element("li", "cell");
  const tile = /** @type {HTMLAnchorElement} */ (element("a", "tile"));
  const shot = element("span", "shot");
  shot.append(icon("picture"));
  tile.append(shot, element("span", "words"));
  tile.tabIndex = cells.size ? -1 : 0;
  cell.append(tile);
  fresh.append(cell);
  adopt(cell, item);
  return cell;
}

/** @param {HTMLElement} cell @param {import("./state.js").Item} item */
function adopt(cell, item) {
  cells.set(item.key, cell);
  tiles.set(cell, item);
  sight.observe(cell);
}

/** Take the tiles that the server drew. */
export function adoptAll() {
  grid.querySelectorAll(".cell").forEach((cell, place) => {
    const item = state.byNumber.get(Number(/** @type {HTMLElement} */ (cell).dataset.n));
    if (item) adopt(/** @type {HTMLElement} */ (cell), item);
    /** @type {HTMLElement} */ (cell.firstElementChild).tabIndex = place ? -1 : 0;
  });
}

/** @param {HTMLElement} cell @param {import("./state.js").Item} item */
function settle(cell, item) {
  const tile = /** @type {HTMLAnchorElement} */ (cell.firstElementChild);
  const before = cell.dataset.state;
  cell.dataset.state = item.state;
  if (item.number !== null) {
    cell.dataset.n = String(item.number);
    tile.href = `${root}/jobs/${state.id}/images/${item.number}`;
  } else {
    tile.href = "#grid";
  }
  const words = /** @type {HTMLElement} */ (tile.lastElementChild);
  if (item.state === "sending" && before === "sending") {
    sending(cell, item);
    return;
  }
  words.replaceChildren(...wordsOf(item), element("span", "name", item.name));
  if (before !== item.state && !shown.has(item.key)) lookAgain(cell);
  const image = cell.querySelector("img");
  if (image) image.alt = alt(item);
}

/** Progress of one upload, without drawing the tile anew. @param {HTMLElement | undefined} cell @param {import("./state.js").Item} item */
export function sending(cell, item) {
  const bar = /** @type {HTMLProgressElement | null | undefined} */ (cell?.querySelector("progress"));
  if (bar) bar.value = item.sent;
}

/** @param {import("./state.js").Item} item @returns {Node[]} */
function wordsOf(item) {
  if (item.state === "ok") return answered(item);
  if (item.state === "sending") {
    const bar = /** @type {HTMLProgressElement} */ (element("progress", ""));
    bar.max = 1;
    bar.value = item.sent;
    bar.setAttribute("aria-label", `Sending ${item.name}`);
    return [element("span", "mark", "Sending"), bar];
  }
  if (item.state === "queued" || item.state === "waiting") return [element("span", "mark", "Waiting")];
  const mark = element("span", "mark failed");
  mark.append(icon("failed"), { cancelled: "Cancelled", failed: "Failed", refused: "Not sent" }[item.state]);
  return [mark, element("span", "second", fault(item)[0])];
}

/** @param {import("./state.js").Item} item */
function answered(item) {
  const { title, second, confidence } = answer(item);
  const nodes = [element("b", "label", title)];
  if (confidence !== null) nodes.push(meter(confidence));
  if (item.label && !item.sure) {
    const mark = element("span", "mark unsure");
    mark.append(icon("unsure"), "Not sure");
    nodes.push(mark);
  }
  if (second) nodes.push(element("span", "second", second));
  return nodes;
}

/** @param {number} confidence */
export function meter(confidence) {
  const row = element("span", "meter");
  const bar = /** @type {HTMLMeterElement} */ (element("meter", ""));
  bar.max = 1;
  bar.value = confidence;
  bar.setAttribute("aria-label", "Confidence");
  row.append(bar, element("span", "percent", percent(confidence)));
  return row;
}

export function clear() {
  forgetPictures();
  cells.clear();
  dirty.clear();
  grid.replaceChildren();
  groups.replaceChildren(grid);
}

/** Visible tiles in the order of the page. @returns {HTMLElement[]} */
export const visible = () => [.../** @type {NodeListOf<HTMLElement>} */ (groups.querySelectorAll(".cell:not([hidden])"))];

/** Move the one tab stop. @param {HTMLElement | undefined} cell @param {boolean} [isFocused] */
export function stop(cell, isFocused = true) {
  if (!cell) return;
  for (const other of groups.querySelectorAll('.tile[tabindex="0"]')) /** @type {HTMLElement} */ (other).tabIndex = -1;
  const tile = /** @type {HTMLElement} */ (cell.firstElementChild);
  tile.tabIndex = 0;
  if (isFocused) tile.focus();
}

groups.addEventListener("focusin", ({ target }) => {
  const cell = /** @type {HTMLElement} */ (target).closest(".cell");
  if (cell) stop(/** @type {HTMLElement} */ (cell), false);
});

groups.addEventListener("click", (event) => {
  const cell = /** @type {HTMLElement} */ (event.target).closest(".cell");
  if (!cell || event.ctrlKey || event.metaKey || event.shiftKey) return;
  event.preventDefault();
  tell("open", tiles.get(cell));
});

groups.addEventListener("keydown", (event) => {
  const cell = /** @type {HTMLElement | null} */ (/** @type {HTMLElement} */ (event.target).closest(".cell"));
  if (!cell || event.ctrlKey || event.metaKey || event.altKey) return;
  const all = visible();
  const place = all.indexOf(cell);
  const top = cell.offsetTop;
  const columns = Math.max(1, all.filter((other) => other.offsetTop === top && other.parentNode === cell.parentNode).length);
  const rows = Math.max(1, Math.floor(innerHeight / (cell.offsetHeight + 12)));
  const step = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns, PageUp: -rows * columns, PageDown: rows * columns }[event.key];
  if (step) stop(all[Math.min(all.length - 1, Math.max(0, place + step))] ?? cell);
  else if (event.key === "Home") stop(all[0]);
  else if (event.key === "End") stop(all.at(-1));
  else if (event.key === "c") tell("copy", tiles.get(cell));
  else if (event.key === "/") document.getElementById("find")?.focus();
  else if (event.key === "?") tell("keys");
  else return;
  event.preventDefault();
});

// Pictures

/** More loaded pictures than these give the memory of the eldest back. */
const MOST_KEPT = 400;

/** @type {Map<string, { item: import("./state.js").Item, image: HTMLImageElement }>} in the order of their showing */
const shown = new Map();
/** In the order they were made. @type {Map<Element, import("./state.js").Item>} */
export const tiles = new Map();
/** @type {Set<string>} keys of what is in sight and has no picture yet */
const wanted = new Set();
/** @type {Set<string>} files that this browser cannot read */
const unreadable = new Set();
/** @type {Worker | null} */
let worker = null;

const sight = new IntersectionObserver((entries) => {
  for (const { target, isIntersecting } of entries) {
    const item = tiles.get(target);
    if (!item) continue;
    if (isIntersecting) want(item, target);
    else if (wanted.delete(item.key)) worker?.postMessage({ drop: item.key });
  }
}, { rootMargin: "300px 0px" });

/** The tiles stand in another order from now on. @param {import("./state.js").Item[]} items */
export function inOrder(items) {
  tiles.clear();
  for (const item of items) tiles.set(/** @type {HTMLElement} */ (cells.get(item.key)), item);
}

/** Look again: its result came. @param {HTMLElement} cell */
function lookAgain(cell) {
  sight.unobserve(cell);
  sight.observe(cell);
}

function forgetPictures() {
  sight.disconnect();
  tiles.clear();
  shown.clear();
  wanted.clear();
  worker?.terminate();
  worker = null;
}

/** @param {import("./state.js").Item} item */
export const thumbnail = (item) => `${root}/api/jobs/${state.id}/images/${item.number}/thumbnail`;

/** @param {import("./state.js").Item} item @param {Element} cell */
function want(item, cell) {
  if (shown.has(item.key) || wanted.has(item.key)) return;
  if (item.file && !unreadable.has(item.key) && item.state !== "refused") {
    wanted.add(item.key);
    maker().postMessage({ key: item.key, file: item.file });
  } else if (item.state === "ok" && document.body.dataset.bare === undefined) {
    showPicture(item, cell, thumbnail(item));
  }
}

function maker() {
  if (worker) return worker;
  worker = new Worker(`${root}/static/thumb.worker.js`, { type: "module" });
  // Its script did not come: the next wish makes another, and what has a result is looked at again with it.
  worker.onerror = () => { worker = null; wanted.clear(); };
  worker.onmessage = ({ data }) => {
    const isWanted = wanted.delete(data.key);
    const cell = cells.get(data.key);
    const item = cell && tiles.get(cell);
    if (!cell || !item) return;
    if (!data.blob) {
      unreadable.add(data.key);
      want(item, cell);
    } else if (isWanted) {
      showPicture(item, cell, URL.createObjectURL(data.blob));
    }
  };
  return worker;
}

/** @param {import("./state.js").Item} item @param {Element} cell @param {string} address */
function showPicture(item, cell, address) {
  const shot = cell.querySelector(".shot");
  const image = shot?.querySelector("img") ?? document.createElement("img");
  image.decoding = "async";
  image.width = image.height = 320;
  image.alt = alt(item);
  image.onload = () => { if (address.startsWith("blob:")) URL.revokeObjectURL(address); };
  // A record without a picture of its own keeps the mark.
  image.onerror = () => { image.remove(); };
  image.src = address;
  if (!image.parentNode) shot?.append(image);
  shown.delete(item.key);
  shown.set(item.key, { item, image });
  if (shown.size > MOST_KEPT) {
    const [eldest, { image: old }] = /** @type {[string, { image: HTMLImageElement }]} */ (shown.entries().next().value);
    shown.delete(eldest);
    old.remove();
    const cellOfOld = cells.get(eldest);
    if (cellOfOld) lookAgain(cellOfOld);
  }
}

/** @param {import("./state.js").Item} item */
function alt(item) {
  if (item.state === "ok") return (!item.sure && item.hedged) || item.label || "No label";
  return item.state === "failed" || item.state === "refused" ? `Failed: ${item.name}` : `Waiting: ${item.name}`;
}
