// @ts-check
// One job on the page: takes images in, follows it, and keeps the line that says how far it is.

import * as grid from "./grid.js";
import { remember } from "./recent.js";
import { add, on, reset, stage, state, upsert } from "./state.js";
import { follow } from "./stream.js";
import * as tools from "./tools.js";
import * as upload from "./upload.js";
import { about, answer, banner, by, clearBanners, copy, count, counted, day, headline, page, percent, root, say, size, waiting } from "./words.js";

/** Without a result for so long the page says why. */
const PATIENCE_S = 3;
const STATUS_MS = 10_000;
const AWAY = "The service does not answer. Try again soon.";
/** Nothing arrived for so long: whoever sent has gone. */
const STALLED_S = 5;

/** @type {(() => void) | null} */
let stopFollowing = null;
let statusAt = 0;
let startedAt = Date.now();
let lastArrived = { count: -1, at: 0 };
let isLineDue = false;
/** The address names an image that is not there yet. */
let isAddressed = false;
/** The job that was closed here because its sender is gone. */
let finished = "";

/** @param {import("./upload.js").Picked[]} pictures in their order @param {number} others files that are no pictures */
export async function take(pictures, others) {
  // A closed job takes no more: what is added begins another one.
  if (pictures.length && stage() !== "open") leave();
  const found = pictures.length ? "" : "No pictures found. ";
  banner("others", found + (others ? `${counted(others, "other file")} skipped.` : ""), [{ text: "Close", run() {} }]);
  if (!pictures.length) {
    document.body.dataset.view = "job";
    return line();
  }
  let rest = pictures;
  if (state.id) rest = await missing(pictures);
  const twice = repeated(state.items.flatMap(({ file }) => file ?? []), rest);
  if (twice.length) {
    banner("twice", `${counted(twice.length, "file is", "files are")} already here.`, [{ text: "Skip", run() {} }, { text: "Add anyway", run: () => start(twice) }]);
    const again = new Set(twice);
    rest = rest.filter((one) => !again.has(one));
  }
  await start(rest);
}

/** @param {import("./upload.js").Picked[]} picked */
async function start(picked) {
  if (!picked.length) return;
  const room = upload.room();
  if (picked.length > room) {
    banner("many", `A job holds up to ${count(page.limits.max_images)} images: ${counted(picked.length - Math.max(0, room), "image")} left out. Hand them in as another job.`, [{ text: "Close", run() {} }], "failed");
  }
  startedAt = Date.now();
  await upload.send(picked.slice(0, Math.max(0, room)));
}

/**
 * Those of some files that are here already, or stand twice among them.
 * @param {File[]} here @param {import("./upload.js").Picked[]} picked
 */
function repeated(here, picked) {
  /** @type {Map<string, number>} */
  const times = new Map();
  for (const { name } of [...here, ...picked.map(({ file }) => file)]) times.set(name, (times.get(name) ?? 0) + 1);
  // A file's size and time cost a question to the system each: asked only of those that share a name.
  const isShared = (/** @type {File} */ { name }) => /** @type {number} */ (times.get(name)) > 1;
  const known = new Set(here.filter(isShared).map(identity));
  return picked.filter(({ file }) => isShared(file) && known.size === known.add(identity(file)).size);
}

/** @param {File} file */
const identity = (file) => `${file.name}\n${file.size}\n${file.lastModified}`;

/** A name as its key holds it. @param {string} name */
const keyName = (name) => name.normalize("NFKD").replace(/[^\x00-\x7f]/g, "").replace(/[^A-Za-z0-9._-]+/g, "_").replace(/^[._]+|[._]+$/g, "") || "image";

/** Of the same files added again: those that have not arrived. @param {import("./upload.js").Picked[]} pictures */
async function missing(pictures) {
  const strangers = state.items.filter((item) => !item.file && item.number !== null);
  if (!strangers.length) return pictures;
  const arrived = new Set((await upload.arrivedImages()).map((one) => `${keyName(one.key_name ?? one.name)}\n${one.bytes}`));
  const rest = pictures.filter(({ file }) => !arrived.has(`${keyName(file.name)}\n${file.size}`));
  if (rest.length < pictures.length) say(`${counted(pictures.length - rest.length, "image")} had arrived before`, true);
  if (!rest.length) void upload.finish();
  return rest;
}

/** Off to a job of its own. */
function leave() {
  stopFollowing?.();
  stopFollowing = null;
  if (by("detail").open) by("detail").close();
  clearBanners();
  grid.clear();
  reset();
}

/** @param {string} id */
function join(id) {
  for (const [name, path] of [["csv", "results.csv"], ["json", "results.json"]]) by(name).href = `${root}/api/jobs/${id}/${path}`;
  by("cancel").action = `${root}/jobs/${id}/cancel`;
  stopFollowing = follow(id, {
    results(results) { grid.draw(note(upsert(results))); line(); if (isAddressed) void openAddressed(); },
    job: setJob,
    frontier() {
      let number = 0;
      // What was cancelled here may have been recognised all the same.
      while (["ok", "failed"].includes(state.byNumber.get(number)?.state ?? "")) number++;
      return number;
    },
    interrupted(is) { banner("stream", is ? "Live updates are interrupted; checking every 5 seconds." : ""); },
    gone(status) {
      const text = status === 401 ? "You are logged out." : status === 410 ? "This job has expired." : "This job is not there any more.";
      banner("gone", text, [{ text: status === 401 ? "Log in" : "Start page", run: () => { location.href = status === 401 ? `${root}/login?next=${encodeURIComponent(location.pathname)}` : `${root}/`; } }], "failed");
    },
  });
}

/** @param {import("./state.js").Item[]} items */
function note(items) {
  if (items.length) void detail().then((module) => module?.refresh(items));
  return items;
}

/** How far a stage is: what has ended does not go on. */
const RANK = /** @type {Record<string, number>} */ ({ open: 0, waiting_for_worker: 1, running: 2, finished: 3, cancelled: 3 });

/**
 * Answers and the stream overtake each other: an older word is none. The answer to a close may be read after the
 * stream has told the end, and nothing would come after it.
 * @param {import("./words.js").Job} job
 */
function isOld(job) {
  const known = state.job;
  return !!known && (RANK[job.stage] < RANK[known.stage] || (RANK[job.stage] === RANK[known.stage] && job.done < known.done));
}

/** @param {import("./words.js").Job} job */
function setJob(job) {
  if (state.id !== job.id || isOld(job)) return;
  const was = state.job?.stage;
  state.job = job;
  document.body.dataset.stage = job.stage;
  if (job.arrived !== lastArrived.count) lastArrived = { count: job.arrived, at: Date.now() };
  const ended = job.stage === "finished" || job.stage === "cancelled";
  by("downloads").hidden = !job.done;
  if (job.model) modelIs(job.model, null);
  // Results are on their way: somebody works.
  if (job.rate || (job.stage === "finished" && was && was !== job.stage)) dotIs(true);
  if (job.stage === "cancelled") {
    for (const item of state.items) if (["queued", "sending", "waiting"].includes(item.state)) item.state = "cancelled";
    grid.draw(state.items.filter((item) => item.state === "cancelled"));
  }
  if (ended && was && was !== job.stage) say(job.ok < job.done || job.stage === "cancelled" ? headline(job) : `All ${counted(job.ok, "image")} recognised`, true);
  failures(ended);
  line();
}

/** @param {boolean} ended */
function failures(ended) {
  const job = state.job;
  const refused = state.items.filter((item) => item.state === "refused").length;
  banner("refused", refused ? `${counted(refused, "file")} could not be sent.` : "", [{ text: refused === 1 ? "Show it" : "Show them", run: () => tools.showOnly("failed"), stays: true }], "failed");
  const failed = ended ? (job?.failed ?? 0) : 0;
  banner("failed", failed ? `${counted(failed, "image")} could not be recognised.` : "", [
    { text: failed === 1 ? "Show it" : "Show them", run: () => tools.showOnly("failed"), stays: true }, { text: "Try again", run: tryAgain },
  ], "failed");
}

/** A job of its own for what failed, from what is stored already: records never change. */
async function tryAgain() {
  const images = [];
  for (let after = "";;) {
    const got = await upload.ask(`/api/jobs/${state.id}/results?status=failed&limit=200${after}`);
    if (!got) return banner("again", AWAY, [], "failed");
    const { results, next } = got;
    // What never was a message was refused at the door: nothing is stored of it.
    images.push(...results.filter((/** @type {any} */ record) => record.receives > 0).map((/** @type {any} */ { image }) => ({ key: image.key, name: image.name })));
    if (next == null) break;
    after = `&after=${next}`;
  }
  if (!images.length) return banner("again", "None of them has arrived: add the files again.", [{ text: "Close", run() {} }]);
  const answer = await upload.post("/api/jobs", { options: { ...state.job?.options, thumbnail: 320 }, images });
  const job = await answer?.json().catch(() => null);
  if (!answer?.ok) return banner("again", job?.detail ?? AWAY, [], "failed");
  remember(job.id, images.length, state.items.find((item) => item.state === "failed")?.name ?? "");
  location.href = `${root}/jobs/${job.id}`;
}

/** The line of the job, once a frame at most. */
function line() {
  if (isLineDue) return;
  isLineDue = true;
  setTimeout(() => { isLineDue = false; drawLine(); }, 100);
}

function drawLine() {
  const { job } = state;
  const sending = upload.isSending();
  const way = upload.progress();
  const sent = [`${count(way.sent)} of ${count(way.total)} sent`, way.perSecond && `${size(way.perSecond)}/s`, way.left_s && `${about(way.left_s)} left`].filter(Boolean).join(" · ");
  const total = Math.max(job?.count ?? 0, job?.expected ?? 0, way.total, 1);
  const arrived = Math.max(job?.arrived ?? 0, way.sent);
  const bar = by("progress");
  // Half of the way is to arrive, half to be recognised: the bar never goes back.
  bar.max = 2 * total;
  bar.value = job?.stage === "finished" ? 2 * total : arrived + (job?.done ?? 0);
  const isEmpty = !state.id && state.items.every((item) => item.state === "refused" || item.state === "cancelled");
  const title = isEmpty ? "Nothing was sent" : job && (job.done || !sending) ? headline(job) : sent;
  by("headline").textContent = title;
  by("cancel").hidden = isEmpty || ["finished", "cancelled"].includes(stage());
  by("copy-link").hidden = !state.id;
  document.title = `${title} · irs`;
  const waited_s = (Date.now() - (job && !way.total ? Date.parse(job.created) : startedAt)) / 1000;
  const isWaiting = !!job && !job.done && arrived > 0 && waited_s > PATIENCE_S && job.stage !== "cancelled";
  by("subline").textContent = sending && job?.done ? sent : isWaiting ? waiting(state.status, waited_s) : "";
  banner("lost", sending ? way.interrupted : "");
  // Nobody sends any more: of what this page did not hand in itself, and not for a while.
  const isLeft = !!job && job.stage === "open" && !sending && !way.total && job.expected != null;
  const isStalled = isLeft && Date.now() - lastArrived.at > STALLED_S * 1000;
  const isShort = isStalled && job.arrived < (job.expected ?? 0);
  banner("rest", isShort ? `${count(job.arrived)} of ${counted(job.expected ?? 0, "image")} arrived. Add the same folder again to send the rest.` : "", job?.arrived ? [{ text: "Leave the rest out", run: () => void upload.finish() }] : []);
  // All are there, and whoever sent them was cut off before it could say so.
  if (isStalled && !isShort && finished !== job.id) {
    finished = job.id;
    void upload.finish();
  }
  if (job && job.stage !== "finished") say(title);
  if ((isWaiting || isLeft) && Date.now() - statusAt > STATUS_MS) void askStatus();
}

async function askStatus() {
  statusAt = Date.now();
  // The stream says when the service is away.
  const status = await upload.ask("/api/status");
  if (!status) return;
  state.status = status;
  modelIs(state.job?.model ?? status.model, status, status.card);
  line();
}

/** @param {{ name: string, digest: string } | null} model @param {any} [status] @param {any} [card] */
function modelIs(model, status, card) {
  if (model) {
    by("model-name").textContent = by("model-full").textContent = model.name;
    by("model-digest").textContent = model.digest;
  }
  if (card) {
    by("model-kinds").hidden = false;
    by("model-kinds").textContent = counted(card.kinds, "kind");
    by("model-sure").textContent = percent(card.sure_above);
    by("model-dated").textContent = card.dated ? day(Date.parse(card.dated) / 1000) : "–";
    by("model-why").hidden = !card.why;
    by("model-why").textContent = `Chosen: ${card.why}.`;
  }
  if (!status) return;
  const { workers, scaled: isScaled } = status;
  const ready = workers.ready + workers.busy;
  dotIs(ready > 0);
  by("model-workers").textContent = ready ? `${count(ready)} ready` : workers.starting ? `${count(workers.starting)} starting` : isScaled ? "None while nothing waits" : "None is running";
}

/** @param {boolean} isReady */
function dotIs(isReady) {
  /** @type {HTMLElement} */ (document.querySelector(".dot")).dataset.ready = isReady ? "yes" : "no";
}

/** Loaded when the first image is opened. */
const detail = (isWanted = false) => (isWanted || by("detail").open ? import("./detail.js") : Promise.resolve(null));

/** Open the image that the address names, or once it is there. */
async function openAddressed() {
  isAddressed = /^#\d+$/.test(location.hash) && !(await detail(true))?.showAddressed();
}

/** Among the recent jobs of this browser. */
const keep = () => remember(/** @type {string} */ (state.id), state.items.length, state.items[0]?.name ?? "");

on("items", (items) => {
  document.body.dataset.view = "job";
  /** @type {HTMLElement} */ (document.querySelector("h1")).textContent = `Job of ${day(Date.now() / 1000)}`;
  // What was added to an open job counts as its own.
  if (state.id && items.some((/** @type {import("./state.js").Item} */ { file }) => file)) keep();
  grid.draw(items);
  line();
});
on("changed", (items) => { grid.draw(items); failures(false); line(); });
on("sent", (item) => { if (item) grid.sending(grid.cells.get(item.key), item); line(); });
on("settled", () => { failures(state.job?.stage === "finished"); line(); });
on("job", setJob);
on("broken", (text) => banner("broken", text, [], "failed"));
on("said", (text) => say(text, true));
on("opened", (job) => {
  history.pushState({ job: job.id }, "", `${root}/jobs/${job.id}${location.search}`);
  document.body.dataset.job = job.id;
  keep();
  join(job.id);
  setJob(job);
});
on("open", async (item) => (await detail(true))?.show(item));
on("copy", async (item) => {
  if (!item?.label) return;
  const { title } = answer(item);
  if (await copy(title.replace(/\?$/, ""))) say(`Copied ${title}`, true);
});
on("keys", () => by("keys").showModal());

by("cancel").addEventListener("submit", async (/** @type {Event} */ event) => {
  event.preventDefault();
  upload.stop();
  if (!state.id) return;
  const job = await upload.ask(`/api/jobs/${state.id}`, { method: "DELETE" });
  if (job) setJob(job);
  else banner("broken", "The job could not be cancelled. Try again soon.", [], "failed");
});
by("copy-link").addEventListener("click", async () => {
  if (!await copy(location.href)) return;
  banner("link", "Link copied. Whoever has it can see the job.");
  setTimeout(() => banner("link", ""), 6000);
});
by("model").addEventListener("toggle", () => void askStatus());
addEventListener("hashchange", openAddressed);
setInterval(() => { if (state.id && state.job && !["finished", "cancelled"].includes(state.job.stage)) line(); }, 1000);

/** The page as the server drew it, taken over. */
export async function begin() {
  tools.start();
  if (!state.id) return;
  for (const cell of /** @type {NodeListOf<HTMLElement>} */ (document.querySelectorAll(".cell"))) {
    add({ number: Number(cell.dataset.n), name: cell.querySelector(".name")?.textContent ?? "", state: "waiting", sent: 1 });
  }
  grid.adoptAll();
  join(state.id);
  // A finished job has a result of each image, and the stream tells them with their names.
  const images = stage() === "finished" ? [] : await upload.arrivedImages();
  const fresh = images.filter((one) => !state.byNumber.has(one.n)).map((one) => add({ number: one.n, name: one.name, bytes: one.bytes, state: "waiting", sent: 1 }));
  for (const one of images) {
    const item = state.byNumber.get(one.n);
    if (item) item.bytes = one.bytes;
  }
  state.items.sort((one, other) => (one.number ?? Infinity) - (other.number ?? Infinity));
  grid.draw(fresh);
  await openAddressed();
}
