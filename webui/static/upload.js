// @ts-check
// What people hand in, and its way to the service: one PUT each, three at a time, each tried until it is there or refused.

import { add, giveNumber, stage, state, takeNumber, tell } from "./state.js";
import { page, root } from "./words.js";

/** @typedef {{ file: File, path: string }} Picked */

/** First bytes of what the service reads, as text of one character a byte (webui/formats.py has the same list). */
const PICTURE = /^(\xff\xd8\xff|\x89PNG\r\n\x1a\n|GIF8[79]a|II[*+]\0|MM\0[*+]|\xff\x4f\xff\x51|\0\0\0\x0cjP {2}\r\n\x87\n|BM|RIFF[^]{4}WEBP|[^]{4}ftyp(?!qt {2}|isom|mp41|mp42|M4V |3gp4|3gp5))/;
const OTHERS = /** @type {[RegExp, string][]} */ ([
  [/^%PDF/, "a PDF"], [/^PK\x03\x04/, "an archive or office file"], [/^(\x1f\x8b|Rar!|7z\xbc\xaf)/, "an archive"],
  [/^(\x1aE\xdf\xa3|OggS|RIFF[^]{4}AVI |[^]{4}ftyp)/, "a video"], [/^(ID3|\xff\xfb|RIFF[^]{4}WAVE)/, "a sound"],
  [/^(\x7fELF|MZ)/, "a program"], [/^(%!PS|8BPS)/, "a drawing"], [/^(<svg|<\?xml)/, "an SVG or XML file"], [/^[\x09-\x0d\x20-\x7e]+$/, "a text"],
]);

const LOST = "Connection lost. Waiting to continue…";
const UNABLE = "The service cannot take images now. Waiting to continue…";
const GONE = "The file can no longer be read: it was moved or changed.";

/** Without an answer: the connection is lost, or the file. @param {File} file */
const isGone = (file) => file.slice(0, 1).arrayBuffer().then(() => false, () => true);

/**
 * Why this file cannot be recognised, as far as that is certain before it is sent; null where a worker is to decide.
 * @param {File} file
 * @returns {Promise<{ error: string, why: string | null } | null>}
 */
export async function refusal(file) {
  if (file.size === 0) return { error: "empty", why: null };
  const { max_bytes } = page.limits;
  if (file.size > max_bytes) {
    return { error: "too_large", why: `The file has ${(file.size / 2 ** 20).toFixed(1)} MB; ${Math.floor(max_bytes / 2 ** 20)} MB are the limit.` };
  }
  let head;
  try {
    head = String.fromCharCode(...new Uint8Array(await file.slice(0, 16).arrayBuffer()));
  } catch {
    return { error: "not_found", why: GONE };
  }
  if (PICTURE.test(head)) return null;
  const kind = OTHERS.find(([sign]) => sign.test(head))?.[1];
  return { error: "not_an_image", why: kind ? `This is ${kind}, not an image.` : null };
}

// Sending

const AT_ONCE = 3;
const PAUSES_MS = [1000, 3000, 9000];
/** The sum of a second and more ago tells the speed. */
const SPEED_MS = 5000;

/** Files whose first bytes are read at once. */
const LOOKS_AT_ONCE = 32;

let running = 0;
let closing = false;
/** The user wants no more of it: what the service says of that is no news. */
let isStopped = false;
/** Two drops in a row fill one job. @type {Promise<boolean> | null} */
let opening = null;
/** Images that were looked at. @type {WeakSet<import("./state.js").Item>} */
const sendable = new WeakSet();
/** Bytes sent over time. @type {[number, number][]} */
let samples = [];
let sentBytes = 0;
/** Why sending waits: "" while it goes on. */
let interrupted = "";
/** @type {Set<() => void>} wakes all that wait for the connection */
const waiting = new Set();
/** @type {Set<XMLHttpRequest>} */
const underWay = new Set();
/** @type {any} */
let wakeLock = null;

addEventListener("online", wake);
addEventListener("beforeunload", (event) => { if (isSending()) event.preventDefault(); });
document.addEventListener("visibilitychange", () => { if (document.visibilityState === "visible" && isSending()) keepAwake(); });

export const isSending = () => running > 0 || state.items.some((item) => item.state === "queued");

/** How far sending is: images, bytes a second, seconds left (null while unknown). */
export function progress() {
  const mine = state.items.filter((item) => item.file);
  const left = mine.filter((item) => item.state === "queued" || item.state === "sending");
  const sizes = mine.map((item) => item.bytes).filter((bytes) => bytes !== null);
  const usual = sizes.reduce((sum, bytes) => sum + bytes, 0) / (sizes.length || 1);
  const leftBytes = left.reduce((sum, item) => sum + (item.bytes ?? usual) * (1 - item.sent), 0);
  const now = performance.now();
  samples = samples.filter(([at]) => now - at < SPEED_MS);
  const [first] = samples;
  const perSecond = first && now - first[0] > 500 ? ((sentBytes - first[1]) / (now - first[0])) * 1000 : null;
  const total = mine.filter((item) => item.state !== "refused").length;
  return { sent: total - left.length, total, perSecond, left_s: perSecond ? leftBytes / perSecond : null, interrupted };
}

/**
 * Put files on the page at once and send them; to the open job, or to a new one.
 * @param {Picked[]} picked
 */
export async function send(picked) {
  if (!state.id) isStopped = false;
  const items = picked.map(({ file, path }) => add({ file, path, name: file.name }));
  tell("items", items);
  void keepAwake();
  for (let start = 0; start < items.length; start += LOOKS_AT_ONCE) {
    await Promise.all(items.slice(start, start + LOOKS_AT_ONCE).map(look));
    if (!items.some((item) => sendable.has(item))) continue;
    // The first images are on their way while the rest is looked at.
    if (!state.id && !(await (opening ??= open(items.filter(({ state: at }) => at !== "refused").length)))) break;
    fill();
  }
  if (state.id) fill();
  else settle();
}

/** Told from its first bytes: what is no picture is not sent at all. @param {import("./state.js").Item} item */
async function look(item) {
  const file = /** @type {File} */ (item.file);
  item.bytes = file.size;
  const refused = await refusal(file);
  if (refused) refuse(item, refused.error, refused.why);
  else sendable.add(item);
}

/**
 * @param {import("./state.js").Item} item @param {string} error @param {string | null} why
 * @param {boolean} [isNumbered] its number is used up: a record says so, or will
 */
function refuse(item, error, why, isNumbered = false) {
  if (!isNumbered) takeNumber(item);
  // On its way when its job was cancelled: that is no failure.
  if (isStopped || error === "cancelled") item.state = "cancelled";
  // Its record may have been told before the answer to the upload.
  else Object.assign(item, { state: item.state === "failed" ? "failed" : "refused", error, why });
  tell("changed", [item]);
}

/** Open a job for so many images. @param {number} expected */
async function open(expected) {
  const key = crypto.randomUUID?.() ?? String(Math.random());
  for (let tries = 0; !isStopped; tries++) {
    const answer = await post("/api/jobs", { options: { thumbnail: 320 }, expected }, { "Idempotency-Key": key });
    // A proxy answers with a page of its own.
    const job = await answer?.json().catch(() => ({}));
    if (isStopped) break;
    if (answer?.ok && job.id) {
      state.id = job.id;
      interrupted = "";
      tell("opened", job);
      break;
    }
    if (answer && !answer.ok && answer.status < 500 && answer.status !== 429) {
      for (const item of state.items) if (item.state === "queued") refuse(item, job.code ?? "internal", job.detail ?? null);
      tell("broken", job.detail ?? "The job could not be opened.");
      break;
    }
    // No answer, or half of one: the same key opens the same job, however often it is asked.
    await pause(tries, answer?.ok === false ? UNABLE : LOST);
  }
  opening = null;
  return !!state.id;
}

/** Start as many uploads as may run. */
function fill() {
  while (running < AT_ONCE) {
    const item = state.items.find((one) => one.state === "queued" && sendable.has(one));
    if (!item) break;
    giveNumber(item, freeNumber());
    item.state = "sending";
    running++;
    tell("changed", [item]);
    put(item).finally(() => { running--; fill(); });
  }
  if (!running && !state.items.some((item) => item.state === "queued")) void close();
}

function freeNumber() {
  let number = 0;
  while (state.byNumber.has(number)) number++;
  return number;
}

/** Send one image until it has arrived or is refused. @param {import("./state.js").Item} item @returns {Promise<void>} */
async function put(item) {
  const address = `${root}/api/jobs/${state.id}/images/${item.number}?name=${encodeURIComponent(item.name)}`;
  for (let tries = 0; ; tries++) {
    const { status, problem } = await request(address, item);
    if (status === 200 || status === 201) {
      interrupted = "";
      // The result may have come before the answer to the upload.
      if (item.state === "sending") item.state = "waiting";
      item.sent = 1;
      tell("changed", [item]);
      return;
    }
    if (isStopped) return refuse(item, "cancelled", null, true);
    if (status === 401) {
      refuse(item, problem.code, problem.detail);
      tell("broken", "You are logged out: log in again, then add the same files.");
      return;
    }
    if (status === 409 && problem.code === "image_taken") {
      // Another tab fills the same job: on with a number that is free.
      takeNumber(item);
      await know();
      giveNumber(item, freeNumber());
      return put(item);
    }
    if (status >= 400 && status < 500 && status !== 408 && status !== 429) {
      // A proxy refuses without a code, and stores no record: closing the job makes one.
      refuse(item, problem.code ?? (status === 413 ? "too_large" : "internal"), problem.detail ?? null, problem.has_record ?? !problem.code);
      return;
    }
    if (status === 0 && await isGone(/** @type {File} */ (item.file))) {
      refuse(item, "not_found", GONE, true);
      return;
    }
    item.sent = 0;
    await pause(tries, status ? UNABLE : LOST);
  }
}

/**
 * One PUT, with its progress; status 0 where no answer came.
 * @param {string} address @param {import("./state.js").Item} item
 * @returns {Promise<{ status: number, problem: any }>}
 */
function request(address, item) {
  return new Promise((resolve) => {
    const xhr = new XMLHttpRequest();
    underWay.add(xhr);
    xhr.onloadend = () => underWay.delete(xhr);
    let before = 0;
    xhr.open("PUT", address);
    xhr.responseType = "json";
    xhr.setRequestHeader("Content-Type", "application/octet-stream");
    xhr.upload.onprogress = ({ loaded, total }) => {
      sentBytes += loaded - before;
      before = loaded;
      item.sent = total ? loaded / total : 0;
      samples.push([performance.now(), sentBytes]);
      tell("sent", item);
    };
    xhr.onload = () => resolve({ status: xhr.status, problem: xhr.response ?? {} });
    xhr.onerror = xhr.onabort = xhr.ontimeout = () => resolve({ status: 0, problem: {} });
    xhr.send(item.file);
  });
}

/**
 * Wait before the next try: longer each time, shorter when the browser is online again.
 * @param {number} tries @param {string} why said from the second on; "" where there is nothing to say
 */
async function pause(tries, why) {
  if (why && (tries >= 1 || !navigator.onLine)) {
    interrupted = why;
    tell("sent", null);
  }
  await new Promise((/** @type {(value?: any) => void} */ resolve) => {
    const go = () => { clearTimeout(timer); waiting.delete(go); resolve(); };
    const timer = setTimeout(go, PAUSES_MS[Math.min(tries, PAUSES_MS.length - 1)]);
    waiting.add(go);
  });
}

function wake() {
  for (const go of [...waiting]) go();
}

/** Nothing more is sent for now. */
function settle() {
  wakeLock?.release?.();
  wakeLock = null;
  tell("settled");
}

/** All have arrived: the job is as large as it will be. @param {boolean} [leaveOut] what has not arrived is given up */
async function close(leaveOut = false) {
  if (closing || isStopped || !state.id || !state.byNumber.size || stage() !== "open") return settle();
  closing = true;
  const id = state.id;
  try {
    for (let tries = 0; stage() === "open"; tries++) {
      const count = Math.max(...state.byNumber.keys()) + 1;
      // A number that is unknown here is one of another tab's, on its way: what was refused here is given up without it.
      const isRefused = state.byNumber.size === count && state.items.some((item) => item.state === "refused" && item.number !== null);
      const answer = await post(`/api/jobs/${id}/close`, { count, leave_out: leaveOut || isRefused || tries > PAUSES_MS.length });
      const body = await answer?.json().catch(() => ({}));
      if (answer?.ok) {
        interrupted = "";
        tell("job", body);
        break;
      }
      if (body?.code === "job_unfilled") {
        // Another tab fills the same job: its images are waited for, though not for ever.
        await know();
      } else if (answer && answer.status < 500 && answer.status !== 429) {
        tell("broken", body.detail ?? "The job could not be closed.");
        break;
      }
      await pause(tries, !answer ? LOST : answer.status >= 500 ? UNABLE : "");
    }
  } finally {
    closing = false;
    settle();
  }
}

/** Close an open job with what has arrived. */
export async function finish() {
  await know();
  await close(true);
}

/** Put what has arrived from elsewhere on the page as well. */
async function know() {
  const fresh = (await arrivedImages()).filter((one) => !state.byNumber.has(one.n));
  tell("items", fresh.map((one) => add({ number: one.n, name: one.name, bytes: one.bytes, state: "waiting", sent: 1 })));
}

/** Send no more: the job is cancelled. */
export function stop() {
  isStopped = true;
  const left = state.items.filter((item) => item.state === "queued");
  for (const item of left) item.state = "cancelled";
  tell("changed", left);
  for (const xhr of underWay) xhr.abort();
  wake();
}

/** @param {string} path @param {unknown} body @param {Record<string, string>} [more] headers @returns {Promise<Response | null>} null where no answer came */
export const post = (path, body, more) => fetch(root + path, { method: "POST", headers: { "Content-Type": "application/json", ...more }, body: JSON.stringify(body) }).catch(() => null);

/** What the API answers; null where it is away, or refuses. @param {string} path @param {RequestInit} [how] @returns {Promise<any>} */
export const ask = (path, how) => fetch(root + path, how).then((answer) => (answer.ok ? answer.json() : null)).catch(() => null);

/** What has arrived of the job, by the server's own list; asked until an answer comes. @returns {Promise<{ n: number, name: string, key_name: string, bytes: number | null }[]>} */
export async function arrivedImages() {
  const { id } = state;
  for (let tries = 0; state.id === id; tries++) {
    const answer = await fetch(`${root}/api/jobs/${id}/images`).catch(() => null);
    const body = await answer?.json().catch(() => null);
    if (answer?.ok && body) return body.images;
    if (answer && !answer.ok && answer.status < 500) break;
    await pause(tries, "");
  }
  return [];
}

export const room = () => page.limits.max_images - state.items.length;

async function keepAwake() {
  try {
    // A hidden page loses it.
    if (wakeLock?.released ?? true) wakeLock = await navigator.wakeLock?.request("screen");
  } catch {
    // Not allowed now: the screen may sleep, sending goes on when it wakes.
  }
}
