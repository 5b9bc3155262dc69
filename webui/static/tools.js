// @ts-check
// Find, show, sort, group: all by hiding and moving the tiles that are there, and all of it in the address.

import { cells, inOrder, tiles, visible } from "./grid.js";
import { on, state } from "./state.js";
import { answer, count, counted, element } from "./words.js";

const form = /** @type {HTMLFormElement} */ (document.getElementById("tools-form"));
const find = /** @type {HTMLInputElement} */ (document.getElementById("find"));
const show = /** @type {HTMLSelectElement} */ (document.getElementById("show"));
const sort = /** @type {HTMLSelectElement} */ (document.getElementById("sort"));
const group = /** @type {HTMLInputElement} */ (document.getElementById("group"));
const grid = /** @type {HTMLElement} */ (document.getElementById("grid"));
const groups = /** @type {HTMLElement} */ (document.getElementById("groups"));
const labels = /** @type {HTMLElement} */ (document.getElementById("labels"));
const none = /** @type {HTMLElement} */ (document.getElementById("none"));
/** From so many results on a list of the labels stands beside the tiles. */
const LIST_FROM = 20;
const UPDATE_MS = 400;

const collator = new Intl.Collator("en", { numeric: true, sensitivity: "base" });
/** The label that the list at the side has chosen. */
let chosen = "";
let isArranged = false;
/** @type {ReturnType<typeof setTimeout> | undefined} */
let timer;

/** @typedef {import("./state.js").Item} Item */

/** @type {Record<string, (item: Item) => boolean>} */
const SHOWN = {
  all: () => true,
  unsure: (item) => item.state === "ok" && item.label !== null && !item.sure,
  failed: (item) => item.state === "failed" || item.state === "refused" || item.state === "cancelled",
  waiting: (item) => item.state === "queued" || item.state === "sending" || item.state === "waiting",
};

/** @param {Item} item */
const titleOf = (item) => (item.state === "ok" ? answer(item).title.replace(/\?$/, "") : "");

/** @type {Record<string, (one: Item, other: Item) => number>} */
const ORDERS = {
  // What is not answered stands at the end.
  label: (one, other) => Number(one.state !== "ok") - Number(other.state !== "ok") || collator.compare(titleOf(one), titleOf(other)),
  confidence: (one, other) => (one.confidence ?? 2) - (other.confidence ?? 2),
  name: (one, other) => collator.compare(one.path || one.name, other.path || other.name),
  added: (one, other) => (one.number ?? Infinity) - (other.number ?? Infinity) || 0,
};

/** @param {Item} item */
function fits(item) {
  if (!SHOWN[show.value](item)) return false;
  if (chosen && titleOf(item) !== chosen) return false;
  const words = find.value.trim().toLowerCase();
  if (!words) return true;
  return `${item.label ?? ""} ${item.hedged ?? ""} ${item.name}`.toLowerCase().includes(words);
}

/** Bring the tiles into the order and the choice that is asked for. */
function arrange() {
  const isMoved = sort.value !== "added" || group.checked;
  let fitting = 0;
  for (const item of state.items) {
    const cell = cells.get(item.key);
    if (!cell) continue;
    const isFit = fits(item);
    if (cell.hidden === isFit) cell.hidden = !isFit;
    if (isFit) fitting++;
  }
  // Tiles stand as they came; those of a job that others filled come in any order.
  if (isMoved || isArranged || !isInOrder()) move();
  isArranged = isMoved;
  none.hidden = fitting > 0 || !state.items.length;
  options();
  list();
  return fitting;
}

function isInOrder() {
  let last = -1;
  for (const { number } of tiles.values()) {
    if (number === null) continue;
    if (number < last) return false;
    last = number;
  }
  return true;
}

function move() {
  const items = [...state.items].filter((item) => cells.has(item.key)).sort(ORDERS[sort.value]);
  const cellsOf = (/** @type {Item[]} */ some) => some.map((item) => /** @type {HTMLElement} */ (cells.get(item.key)));
  const focused = document.activeElement;
  groups.toggleAttribute("data-by", group.checked);
  if (!group.checked) {
    grid.append(...cellsOf(items));
    groups.replaceChildren(grid);
    inOrder(items);
  } else {
    /** @type {Map<string, Item[]>} */
    const byLabel = new Map();
    for (const item of items) {
      const title = titleOf(item) || (SHOWN.failed(item) ? "Failed" : SHOWN.waiting(item) ? "Waiting" : "No label");
      byLabel.set(title, [...(byLabel.get(title) ?? []), item]);
    }
    const isLabel = (/** @type {Item[]} */ [one]) => Number(titleOf(one) !== "");
    const sections = [...byLabel].sort(([, one], [, other]) => isLabel(other) - isLabel(one) || other.length - one.length).map(([title, some]) => {
      const section = element("section", "");
      const heading = element("h3", "");
      heading.append(element("b", "", title), element("span", "", count(some.filter(fits).length)));
      const tiles = element("ul", "grid");
      tiles.setAttribute("aria-label", title);
      tiles.append(...cellsOf(some));
      section.hidden = !some.some(fits);
      section.append(heading, tiles);
      return section;
    });
    // The empty list stays in the page: new tiles are drawn into it, then sorted in.
    groups.replaceChildren(...sections, grid);
  }
  if (focused instanceof HTMLElement && groups.contains(focused)) focused.focus({ preventScroll: true });
}

function options() {
  const texts = { all: "All", unsure: "Not sure", failed: "Failed", waiting: "Waiting" };
  for (const option of show.options) {
    const number = state.items.filter(SHOWN[option.value]).length;
    option.textContent = `${texts[/** @type {keyof typeof texts} */ (option.value)]} (${count(number)})`;
  }
}

function list() {
  /** @type {Map<string, number>} */
  const counts = new Map();
  for (const item of state.items) {
    const title = titleOf(item);
    if (title) counts.set(title, (counts.get(title) ?? 0) + 1);
  }
  labels.hidden = [...counts.values()].reduce((sum, number) => sum + number, 0) <= LIST_FROM;
  // A mark of its own: `:has()` would make the browser look through all tiles at each change.
  labels.parentElement?.toggleAttribute("data-listed", !labels.hidden);
  if (labels.hidden) return;
  const rows = element("ol", "");
  for (const [title, number] of [...counts].sort((one, other) => other[1] - one[1] || collator.compare(one[0], other[0]))) {
    const button = element("button", "", title);
    button.setAttribute("type", "button");
    button.setAttribute("aria-pressed", String(title === chosen));
    button.append(element("span", "", count(number)));
    button.addEventListener("click", () => {
      chosen = title === chosen ? "" : title;
      changed();
      [.../** @type {NodeListOf<HTMLElement>} */ (labels.querySelectorAll("button"))].find((other) => other.firstChild?.textContent === title)?.focus();
    });
    const row = element("li", "");
    row.append(button);
    rows.append(row);
  }
  labels.replaceChildren(rows);
}

const fields = { find, show, sort };

function remember() {
  const query = new URLSearchParams(location.search);
  query.delete("page");
  const values = {
    find: find.value.trim(), show: show.value === "all" ? "" : show.value, sort: sort.value === "added" ? "" : sort.value,
    group: group.checked ? "label" : "", size: size() === "m" ? "" : size(), label: chosen,
  };
  for (const [name, value] of Object.entries(values)) value ? query.set(name, value) : query.delete(name);
  const text = query.toString();
  history.replaceState(history.state, "", `${location.pathname}${text ? `?${text}` : ""}${location.hash}`);
}

const size = () => /** @type {HTMLInputElement | null} */ (form.querySelector('[name="size"]:checked'))?.value ?? "m";

function changed() {
  document.body.dataset.size = size();
  const fitting = arrange();
  remember();
  const say = document.getElementById("say");
  if (say) say.textContent = `${counted(fitting, "image")} shown`;
}

/** Show everything of one kind: what a banner points at. @param {string} kind */
export function showOnly(kind) {
  show.value = kind;
  find.value = "";
  chosen = "";
  changed();
}

/** @returns {Item[]} what the page shows, in its order */
export const shownItems = () => visible().map((cell) => /** @type {Item} */ (tiles.get(cell)));

export function start() {
  const query = new URLSearchParams(location.search);
  for (const [name, field] of Object.entries(fields)) {
    const value = query.get(name);
    if (value && (field === find || [.../** @type {HTMLSelectElement} */ (field).options].some((option) => option.value === value))) field.value = value;
  }
  group.checked = query.get("group") === "label";
  chosen = query.get("label") ?? "";
  const wanted = form.querySelector(`[name="size"][value="${CSS.escape(query.get("size") ?? "m")}"]`);
  if (wanted) /** @type {HTMLInputElement} */ (wanted).checked = true;
  document.body.dataset.size = size();
  form.addEventListener("input", changed);
  form.addEventListener("submit", (event) => event.preventDefault());
  document.getElementById("show-all")?.addEventListener("click", () => { showOnly("all"); find.focus(); });
  const tools = /** @type {HTMLDetailsElement} */ (document.getElementById("tools"));
  const isNarrow = matchMedia("(max-width: 699px)");
  const fold = () => { tools.open = !isNarrow.matches || location.search !== ""; };
  isNarrow.addEventListener("change", fold);
  fold();
  on("drawn", (/** @type {boolean} */ isMore) => {
    // While results pour in the order is mended now and then, not for each.
    timer ??= setTimeout(() => {
      timer = undefined;
      arrange();
    }, isMore ? UPDATE_MS : 60);
  });
}
