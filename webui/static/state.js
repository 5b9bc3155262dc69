// @ts-check
// The job on the page: its images by number, its counts, and who is told of a change.

import { plainName } from "./words.js";

/**
 * One image. `number` is null while it waits to be sent or was refused here.
 * @typedef {{ key: string, number: number | null, name: string, bytes: number | null, file: File | null, path: string,
 *   state: "queued" | "sending" | "waiting" | "ok" | "failed" | "cancelled" | "refused", sent: number, label: string | null,
 *   confidence: number | null, sure: boolean, hedged: string | null, error: string | null, why: string | null }} Item
 */

const events = new EventTarget();

export const state = {
  /** @type {string | null} */ id: document.body.dataset.job ?? null,
  /** @type {import("./words.js").Job | null} */ job: null,
  /** In the order they were added. @type {Item[]} */ items: [],
  /** @type {Map<number, Item>} */ byNumber: new Map(),
  /** What GET /api/status said last. @type {any} */ status: null,
};

/** Of the job, by the last word of the stream or else of the page as it was drawn. */
export const stage = () => state.job?.stage ?? document.body.dataset.stage ?? "open";

let keys = 0;

/** @param {Partial<Item>} values @returns {Item} */
export function add(values) {
  /** @type {Item} */
  const item = {
    key: `i${keys++}`, number: null, name: "", bytes: null, file: null, path: "", state: "queued", sent: 0,
    label: null, confidence: null, sure: false, hedged: null, error: null, why: null, ...values,
  };
  item.name = plainName(item.name);
  state.items.push(item);
  if (item.number !== null) state.byNumber.set(item.number, item);
  return item;
}

/** @param {Item} item @param {number} number */
export function giveNumber(item, number) {
  item.number = number;
  state.byNumber.set(number, item);
}

/** @param {Item} item */
export function takeNumber(item) {
  if (item.number !== null) state.byNumber.delete(item.number);
  item.number = null;
}

/** Take results of the stream; those that came before change nothing. @param {any[]} results @returns {Item[]} what is new */
export function upsert(results) {
  const changed = [];
  for (const result of results) {
    let item = state.byNumber.get(result.number);
    if (item?.state === result.status && item?.label === result.label) continue;
    item ??= add({ number: result.number, name: result.name ?? "" });
    Object.assign(item, {
      state: result.status, label: result.label, confidence: result.confidence, sure: result.sure,
      hedged: result.hedged, error: result.error && (item.error ?? result.error), sent: 1,
    });
    if (!item.name && result.name) item.name = plainName(result.name);
    changed.push(item);
  }
  return changed;
}

/** @param {string} name @param {unknown} [detail] */
export function tell(name, detail) {
  events.dispatchEvent(new CustomEvent(name, { detail }));
}

/** @param {string} name @param {(detail: any) => void} handler */
export function on(name, handler) {
  events.addEventListener(name, (event) => handler(/** @type {CustomEvent} */ (event).detail));
}

/** Leave all of the last job. */
export function reset() {
  Object.assign(state, { id: null, job: null, items: [] });
  state.byNumber.clear();
  document.body.dataset.view = "home";
  delete document.body.dataset.stage;
  delete document.body.dataset.bare;
}
