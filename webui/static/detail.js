// @ts-check
// One image, large: the most likely labels, why it is not sure, where the time went, what the file is.

import { cells, meter, stop, thumbnail } from "./grid.js";
import { state, tell } from "./state.js";
import { shownItems } from "./tools.js";
import { answer, copy, count, duration, element, fault, icon, percent, root, size } from "./words.js";

/** @typedef {import("./state.js").Item} Item */

const dialog = /** @type {HTMLDialogElement} */ (document.getElementById("detail"));
/** @param {string} id */
const part = (id) => /** @type {HTMLElement} */ (document.getElementById(`detail-${id}`));
const isWide = matchMedia("(min-width: 1200px)");
const SWIPE_PX = 60;

/** @type {Item | null} */
let open = null;
/** @type {any} */
let record = null;
/** @type {string | null} */
let cost = null;
let objectUrl = "";

/** @param {Item | undefined} item */
export function show(item) {
  if (!item) return;
  open = item;
  record = null;
  mark();
  fill();
  if (!dialog.open) {
    // Beside the grid there is room for both; on smaller screens it covers the page.
    if (isWide.matches) dialog.show();
    else dialog.showModal();
    document.body.toggleAttribute("data-detail", true);
  }
  part("body").scrollTop = 0;
  part("body").focus({ preventScroll: true });
  if (item.number !== null) history.replaceState(history.state, "", `${location.pathname}${location.search}#${item.number}`);
  void load(item);
}

/** Show the image that the address names; false where it is not there. */
export function showAddressed() {
  const number = /^#(\d+)$/.exec(location.hash)?.[1];
  const item = number === undefined ? undefined : state.byNumber.get(Number(number));
  if (item && item !== open) show(item);
  return !!item;
}

/** Its result came while it is open. @param {Item[]} items */
export function refresh(items) {
  if (!open || !items.includes(open)) return;
  fill();
  void load(open);
}

/** @param {Item} item */
async function load(item) {
  if (item.number === null || !["ok", "failed", "cancelled"].includes(item.state)) return;
  const after = item.number > 0 ? `&after=${item.number - 1}` : "";
  try {
    const got = await fetch(`${root}/api/jobs/${state.id}/results?limit=1${after}`);
    if (!got.ok) return;
    const found = (await got.json()).results[0];
    if (open !== item || found?.number !== item.number) return;
    record = found;
    fill();
    cost = (await (await fetch(`${root}/api/jobs/${state.id}/cost`)).json()).summary;
    if (open === item) facts(item);
  } catch {
    // The words of the tile stand; what only the record knows stays away.
  }
}

function fill() {
  if (!open) return;
  const item = open;
  const items = shownItems();
  const place = items.indexOf(item);
  part("place").textContent = place < 0 ? "" : `${count(place + 1)} of ${count(items.length)}`;
  /** @type {HTMLButtonElement} */ (part("before")).disabled = place <= 0;
  /** @type {HTMLButtonElement} */ (part("after")).disabled = place < 0 || place >= items.length - 1;
  part("title").textContent = item.state === "ok" ? answer(item).title : { failed: "Failed", refused: "Not sent", cancelled: "Cancelled" }[/** @type {string} */ (item.state)] ?? "Waiting";
  part("why").textContent = why(item);
  picture(item);
  labels();
  timing();
  facts(item);
  const isAnswered = item.state === "ok" && item.label !== null;
  part("copy").hidden = !isAnswered;
  part("json").hidden = !record;
  const original = /** @type {HTMLAnchorElement} */ (part("original"));
  original.hidden = item.number === null || item.state === "sending" || item.state === "queued";
  original.href = `${root}/api/jobs/${state.id}/images/${item.number}/original`;
}

/** @param {Item} item */
function why(item) {
  if (item.state === "ok" && item.label && !item.sure) {
    const hedge = record?.hedged && record.hedged.label !== item.label ? record.hedged : null;
    const kind = hedge ? ` It is ${percent(hedge.confidence)} likely to be some kind of ${hedge.label}.` : "";
    return `Not sure: no single label is likely enough for this model.${kind}`;
  }
  if (item.state === "ok") return item.label ? "" : answer(item).second;
  if (item.state === "queued" || item.state === "sending") return "On its way to the service.";
  if (item.state === "waiting") return "Waiting for a worker.";
  return fault(item).join(" ");
}

/** @param {Item} item */
function picture(item) {
  const figure = part("figure");
  if (figure.dataset.key === `${item.key} ${item.state}`) return;
  figure.dataset.key = `${item.key} ${item.state}`;
  URL.revokeObjectURL(objectUrl);
  objectUrl = "";
  const image = /** @type {HTMLImageElement} */ (element("img", ""));
  image.alt = item.state === "ok" ? answer(item).title : item.name;
  // Large from the file at hand, or the original; what no browser shows falls back to the worker's copy.
  const small = item.number === null ? "" : thumbnail(item);
  image.onerror = () => {
    if (small && !image.src.endsWith("/thumbnail") && item.state === "ok") image.src = small;
    else image.replaceWith(icon("picture"));
  };
  if (item.file) image.src = objectUrl = URL.createObjectURL(item.file);
  else if (item.number !== null) image.src = `${root}/api/jobs/${state.id}/images/${item.number}/original`;
  figure.replaceChildren(image.src ? image : icon("picture"));
}

function labels() {
  const table = /** @type {HTMLTableElement} */ (part("labels"));
  const rows = (record?.labels ?? []).map((/** @type {any} */ label) => {
    const row = element("tr", "");
    const name = element("th", "", label.label);
    name.setAttribute("scope", "row");
    const bar = element("td", "");
    bar.append(/** @type {Element} */ (meter(label.confidence).firstElementChild));
    row.append(name, bar, element("td", "number", percent(label.confidence)));
    return row;
  });
  table.tBodies[0].replaceChildren(...rows);
  table.hidden = !rows.length;
}

const STEPS = /** @type {const} */ ([["queued", "waited"], ["fetch", "fetched"], ["decode", "decoded"], ["batch", "batched"], ["model", "model"], ["store", "stored"]]);

function timing() {
  const list = part("timing");
  const steps = STEPS.filter(([key]) => record?.timing?.[key] != null).map(([key, word]) => {
    const step = element("li", "");
    const seconds = record.timing[key];
    step.append(element("b", "", `${word} `), seconds < 1 ? `${(seconds * 1000).toFixed(seconds < 0.01 ? 1 : 0)} ms` : duration(seconds));
    return step;
  });
  list.replaceChildren(...steps);
  list.hidden = !steps.length;
  /** @type {HTMLElement} */ (list.previousElementSibling).hidden = !steps.length;
}

/** @param {Item} item */
function facts(item) {
  const image = record?.image ?? {};
  const bytes = image.bytes ?? item.bytes;
  const rows = [
    ["Name", item.path || item.name],
    ["Picture", image.width ? `${image.format}, ${image.width} × ${image.height} px` : null],
    ["Size", bytes != null ? size(bytes) : null],
    ["Model", record?.model?.name],
    ["Worker", record?.worker],
    ["Cost", record && cost],
    ["Reason", record?.error?.message],
    ["Code", record?.error?.code ?? item.error],
  ].filter(([, value]) => value);
  part("facts").replaceChildren(...rows.flatMap(([name, value]) => [element("dt", "", name), element("dd", "", value)]));
}

function mark() {
  for (const tile of document.querySelectorAll(".tile[aria-current]")) tile.removeAttribute("aria-current");
  if (open) cells.get(open.key)?.firstElementChild?.setAttribute("aria-current", "true");
}

/** @param {number} by */
function step(by) {
  const items = shownItems();
  const next = open && items[items.indexOf(open) + by];
  if (!next) return;
  show(next);
  cells.get(next.key)?.scrollIntoView({ block: "nearest" });
}

dialog.addEventListener("close", () => {
  const cell = open && cells.get(open.key);
  open = null;
  document.body.toggleAttribute("data-detail", false);
  mark();
  URL.revokeObjectURL(objectUrl);
  objectUrl = "";
  part("figure").dataset.key = "";
  history.replaceState(history.state, "", location.pathname + location.search);
  // Back to where one came from, wherever the arrows led.
  if (cell) stop(/** @type {HTMLElement} */ (cell));
});
dialog.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === "ArrowLeft") step(-1);
  else if (event.key === "ArrowRight") step(1);
  else if (event.key === "Escape") dialog.close();
  else return;
  event.preventDefault();
});
let startX = 0;
dialog.addEventListener("touchstart", ({ touches }) => { startX = touches[0].clientX; }, { passive: true });
dialog.addEventListener("touchend", ({ changedTouches }) => {
  const moved = changedTouches[0].clientX - startX;
  if (Math.abs(moved) > SWIPE_PX) step(moved < 0 ? 1 : -1);
}, { passive: true });
part("close").addEventListener("click", () => dialog.close());
part("before").addEventListener("click", () => step(-1));
part("after").addEventListener("click", () => step(1));
part("copy").addEventListener("click", () => tell("copy", open));
part("json").addEventListener("click", async () => {
  if (await copy(JSON.stringify(record, null, 2))) tell("said", "JSON copied");
});
// Clicks beside a covering dialog close it.
dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
