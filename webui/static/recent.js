// @ts-check
// The last jobs of this browser: kept here alone, there is no list of jobs on the server.

import { counted, day, element, icon, plainName, root } from "./words.js";

const KEY = "irs.jobs";
const MOST = 20;

/** @typedef {{ id: string, at: number, count: number, name: string }} Known */

/** @returns {Known[]} */
function all() {
  try {
    return JSON.parse(localStorage.getItem(KEY) ?? "[]");
  } catch {
    return [];
  }
}

/** @param {Known[]} jobs */
function keep(jobs) {
  try {
    localStorage.setItem(KEY, JSON.stringify(jobs.slice(0, MOST)));
  } catch {
    // Storage is forbidden or full: the address of the job still leads to it.
  }
}

/** @param {string} id @param {number} images @param {string} name of the first of them */
export function remember(id, images, name) {
  keep([{ id, at: Date.now() / 1000, count: images, name }, ...all().filter((other) => other.id !== id)]);
}

export function draw() {
  const section = /** @type {HTMLElement} */ (document.getElementById("recent"));
  const jobs = all();
  section.hidden = !jobs.length;
  /** @type {HTMLElement} */ (section.querySelector("ul")).replaceChildren(...jobs.map((job) => {
    const row = element("li", "");
    const link = /** @type {HTMLAnchorElement} */ (element("a", ""));
    link.href = `${root}/jobs/${job.id}`;
    const first = plainName(job.name);
    link.append(element("b", "", job.count > 1 ? `${first} and ${counted(job.count - 1, "other")}` : first), element("small", "", day(job.at)));
    const forget = element("button", "square");
    forget.setAttribute("type", "button");
    forget.setAttribute("aria-label", `Forget ${first}`);
    forget.append(icon("close"));
    forget.addEventListener("click", () => { keep(all().filter((other) => other.id !== job.id)); draw(); });
    row.append(link, forget);
    return row;
  }));
  document.getElementById("forget-all")?.addEventListener("click", () => { keep([]); draw(); }, { once: true });
}
