// @ts-check
// What the page says: numbers, durations, and how sure an answer is. The server says the same (templates/words*.html).

/** @typedef {{ max_bytes: number, max_images: number }} Limits */
/** @typedef {{ faults: Record<string, [string, string]>, limits: Limits }} PageData */
/** @typedef {{ id: string, stage: string, count: number | null, expected: number | null, arrived: number, done: number, ok: number,
 *   failed: number, cancelled: number, unsure: number, created: string, finished_at: string | null, rate: number | null,
 *   eta_s: number | null, expires_at: string, options: object, model: { name: string, digest: string } | null }} Job */

/** @type {PageData} */
export const page = JSON.parse(document.getElementById("page-data")?.textContent || "{}");
export const root = document.documentElement.dataset.root || "";
const NBSP = "\u00a0";

/**
 * Whether a text could be copied; where a browser forbids it (a page of plain HTTP) it is shown to be copied by hand.
 * @param {string} text
 */
export async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    prompt("Copy this:", text);
    return false;
  }
}

/** An element that is always there. @param {string} id */
export const by = (id) => /** @type {any} */ (document.getElementById(id));

/** @param {number} value */
export const count = (value) => Math.round(value).toLocaleString("en");

/** @param {number} value how many @param {string} one @param {string} [many] */
export const counted = (value, one, many = `${one}s`) => `${count(value)} ${value === 1 ? one : many}`;

/** Nothing is certain, and nothing impossible. @param {number} confidence */
export function percent(confidence) {
  if (confidence > 0.995) return `>99${NBSP}%`;
  return confidence < 0.01 ? `<1${NBSP}%` : `${Math.round(confidence * 100)}${NBSP}%`;
}

/** @param {number} seconds */
export function duration(seconds) {
  if (seconds < 9.5) return `${Math.max(1, Math.round(seconds))}${NBSP}s`;
  const whole = Math.round(seconds);
  if (whole < 60) return `${whole}${NBSP}s`;
  const minutes = Math.floor(whole / 60);
  if (minutes < 60) return whole % 60 ? `${minutes}${NBSP}min ${whole % 60}${NBSP}s` : `${minutes}${NBSP}min`;
  return `${Math.floor(minutes / 60)}${NBSP}h ${minutes % 60}${NBSP}min`;
}

/** A guess needs no seconds. @param {number} seconds */
export const about = (seconds) => (seconds < 90 ? `about ${duration(seconds)}` : `about ${Math.round(seconds / 60)}${NBSP}min`);

/** @param {number} bytes */
export function size(bytes) {
  if (bytes < 1000) return `${bytes}${NBSP}B`;
  if (bytes < 1e6) return `${Math.round(bytes / 1000)}${NBSP}KB`;
  return `${(bytes / 1e6).toFixed(1)}${NBSP}MB`;
}

/** @param {number} unix_s */
export const day = (unix_s) => new Date(unix_s * 1000).toLocaleDateString("en-GB", { day: "numeric", month: "short", year: "numeric" });

/** What a name may do to the line it stands in is taken away: control and direction characters. @param {string} name */
export const plainName = (name) => name.replace(/[\u0000-\u001f\u007f-\u009f\u200e\u200f\u202a-\u202e\u2066-\u2069]/g, "\ufffd");

/**
 * The words of an answered tile: title, second line, and whether the bar shows the title's own confidence.
 * @param {{ label: string | null, confidence: number | null, sure: boolean, hedged: string | null }} item
 */
export function answer(item) {
  if (!item.label) return { title: "No label", second: "Nothing that is wanted is likely enough.", confidence: null };
  const confidence = item.confidence ?? 0;
  if (item.sure) return { title: item.label, second: "", confidence };
  if (item.hedged && item.hedged !== item.label) {
    return { title: item.hedged, second: `maybe ${item.label} ${percent(confidence)}`, confidence: null };
  }
  return { title: `${item.label}?`, second: "", confidence };
}

/** What is wrong with an image, and what to do about it. @param {import("./state.js").Item} item @returns {[string, string]} */
export function fault(item) {
  const [what, toDo] = page.faults[item.error ?? item.state] ?? ["Not recognised.", ""];
  return [item.why ?? what, toDo];
}

/** How far the job is. @param {Job} job */
export function headline(job) {
  const total = job.stage === "cancelled" ? Math.max(job.count ?? 0, job.expected ?? 0) : job.count ?? job.expected;
  const of = total ? ` of ${count(total)}` : "";
  if (job.stage === "finished") {
    const took = job.finished_at ? ` in ${duration((Date.parse(job.finished_at) - Date.parse(job.created)) / 1000)}` : "";
    const rest = [
      job.unsure && `${count(job.unsure)} not sure`,
      job.failed && `${count(job.failed)} failed`,
      job.cancelled && `${count(job.cancelled)} cancelled`,
    ].filter(Boolean);
    return `${count(job.ok)} recognised${took}.${rest.length ? ` ${rest.join(", ")}.` : ""}`;
  }
  if (job.stage === "cancelled") return `Cancelled. ${count(job.ok)}${of} recognised.`;
  if (job.done) {
    return [
      `${count(job.ok)}${of} recognised`,
      job.failed && `${count(job.failed)} failed`,
      job.rate && `${job.rate >= 1 ? count(job.rate) : job.rate.toFixed(1)} a second`,
      job.eta_s && `${about(job.eta_s)} left`,
    ].filter(Boolean).join(" · ");
  }
  return job.arrived ? `${count(job.arrived)}${of} arrived, waiting for the first result` : "Waiting for images";
}

/**
 * Why there is no result yet, and what to do.
 * @param {any} status what GET /api/status says @param {number} waited_s
 */
export function waiting(status, waited_s) {
  const waited = waited_s >= 5 ? ` ${duration(waited_s)} so far.` : "";
  const workers = status?.workers;
  if (!workers) return "";
  if (workers.ready + workers.busy > 0) return `Waiting for a worker to take the first image.${waited}`;
  const usual = status.typical_start_s ? about(status.typical_start_s) : "about a minute";
  if (workers.starting || status.scaled) return `Starting a worker. The first result takes ${usual}.${waited}`;
  return `No worker is running and none is starting. Start one with “irs worker”; the images wait for it.${waited}`;
}

/** Each is sought once: a thousand tiles ask. @type {Map<string, Element>} */
const icons = new Map();

/** @param {string} name */
export function icon(name) {
  if (!icons.has(name)) icons.set(name, /** @type {Element} */ (document.querySelector(`[data-icon="${name}"]`)?.firstElementChild));
  return /** @type {Element} */ (icons.get(name)).cloneNode(true);
}

/** @param {string} kind @param {string} className @param {string} [text] */
export function element(kind, className, text) {
  const made = document.createElement(kind);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

const place = /** @type {HTMLElement} */ (document.getElementById("banners"));

/** @typedef {{ text: string, run: () => void, stays?: boolean }} Action */

/**
 * @param {string} cause the banner of the same cause is replaced; "" text takes it away
 * @param {string} text @param {Action[]} [actions] @param {"" | "failed"} [kind]
 */
export function banner(cause, text, actions = [], kind = "") {
  const old = /** @type {HTMLElement | null} */ (place.querySelector(`[data-cause="${cause}"]`));
  if (!text) {
    old?.remove();
    return;
  }
  // Said anew only when it changed: screen readers speak each change.
  if (old?.querySelector("p")?.textContent === text) return;
  const made = element("div", "banner");
  made.dataset.cause = cause;
  made.dataset.kind = kind;
  made.append(icon(kind === "failed" ? "failed" : "note"), element("p", "", text));
  for (const { text: name, run, stays } of actions) {
    const button = element("button", "plain", name);
    button.setAttribute("type", "button");
    button.addEventListener("click", () => { if (!stays) made.remove(); run(); });
    made.append(button);
  }
  if (old) old.replaceWith(made);
  else place.append(made);
}

export const clearBanners = () => place.replaceChildren();

let spoken = 0;
/** @type {ReturnType<typeof setTimeout> | undefined} */
let later;

/** Speak to those who listen: every 5 s at most, the last word always. @param {string} text @param {boolean} [isNow] */
export function say(text, isNow = false) {
  const line = /** @type {HTMLElement} */ (document.getElementById("say"));
  clearTimeout(later);
  const wait = isNow ? 0 : Math.max(0, spoken + 5000 - performance.now());
  later = setTimeout(() => {
    spoken = performance.now();
    if (line.textContent !== text) line.textContent = text;
  }, wait);
}
