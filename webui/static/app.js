// @ts-check
// The page before there is a job: choosing, dropping and pasting, recent jobs, colours. What a job needs is loaded with it.

import * as recent from "./recent.js";
import { state } from "./state.js";
import { by, counted, root } from "./words.js";

/** @typedef {import("./upload.js").Picked} Picked */
/** @typedef {{ file: File | null, path: string }} Found `file` is null of what could not be read */

const PICTURES = /\.(jpe?g|jfif|png|webp|gif|bmp|dib|tiff?|avif|heic|heif|jp2|j2k|jpx)$/i;
const SYSTEM = /^(\.|thumbs\.db$|desktop\.ini$|__macosx$)/i;
const order = new Intl.Collator("en", { numeric: true, sensitivity: "base" });

/** Sort by path as people count: 2 before 10. @param {Picked[]} picked */
const sorted = (picked) => picked.sort((one, other) => order.compare(one.path, other.path));

/** @param {FileList | File[]} files @returns {Picked[]} */
const fromFiles = (files) => [...files].map((file) => ({ file, path: file.webkitRelativePath || file.name }));

/** @type {Promise<typeof import("./job.js")> | null} */
let loading = null;

/** All that a job needs, started. */
function job() {
  loading ??= import("./job.js").then(async (module) => {
    await module.begin();
    return module;
  });
  return loading;
}

/** @param {Found[]} picked */
async function take(picked) {
  const { pictures, others } = picturesOf(picked);
  await (await job()).take(pictures, others);
}

for (const id of ["pick-files", "pick-folder", "pick-photo"]) {
  by(id).addEventListener("change", (/** @type {Event} */ event) => {
    const input = /** @type {HTMLInputElement} */ (event.target);
    const picked = fromFiles(input.files ?? []);
    // The same folder may be chosen again: the value of a file input is what fires the next change.
    input.value = "";
    void take(picked);
  });
}
addEventListener("paste", (event) => {
  if (event.clipboardData?.files.length) void take(fromFiles(event.clipboardData.files));
});

let depth = 0;
/** @param {DragEvent} event */
const hasFiles = (event) => !!event.dataTransfer?.types.includes("Files");
addEventListener("dragenter", (event) => { if (hasFiles(event)) { event.preventDefault(); depth++; by("veil").hidden = false; } });
addEventListener("dragover", (event) => { if (hasFiles(event)) event.preventDefault(); });
addEventListener("dragleave", () => { depth = Math.max(0, depth - 1); if (!depth) by("veil").hidden = true; });
addEventListener("drop", async (event) => {
  if (!hasFiles(event) || !event.dataTransfer) return;
  event.preventDefault();
  depth = 0;
  by("veil").hidden = true;
  document.body.dataset.view = "job";
  let found = 0;
  await take(await fromDrop(event.dataTransfer, (one) => { if (isPicture(one)) by("headline").textContent = `Found ${counted(++found, "image")}`; }));
});

for (const button of /** @type {NodeListOf<HTMLElement>} */ (document.querySelectorAll(".sample"))) {
  button.addEventListener("click", async () => {
    const got = await fetch(/** @type {string} */ (button.dataset.src)).catch(() => null);
    if (got?.ok) await take([{ file: new File([await got.blob()], /** @type {string} */ (button.dataset.name)), path: /** @type {string} */ (button.dataset.name) }]);
  });
}

by("keys-close").addEventListener("click", () => by("keys").close());
by("show-keys").addEventListener("click", () => by("keys").showModal());
// Another address of the history is another page; another place in this one is not.
const startPath = location.pathname;
addEventListener("popstate", () => { if (location.pathname !== (state.id ? `${root}/jobs/${state.id}` : startPath)) location.reload(); });
document.addEventListener("click", ({ target }) => {
  for (const menu of document.querySelectorAll("header details[open]")) if (!menu.contains(/** @type {Node} */ (target))) menu.removeAttribute("open");
});
document.addEventListener("keydown", ({ key }) => {
  if (key === "Escape") for (const menu of document.querySelectorAll("header details[open]")) menu.removeAttribute("open");
});
for (const radio of /** @type {NodeListOf<HTMLInputElement>} */ (document.querySelectorAll('[name="theme"]'))) {
  radio.checked = radio.value === (document.documentElement.dataset.theme ?? "system");
  radio.addEventListener("change", () => {
    if (radio.value === "system") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = radio.value;
    try {
      localStorage.setItem("irs.theme", radio.value === "system" ? "" : radio.value);
    } catch {
      // Storage is forbidden: the choice holds for this page.
    }
  });
}
for (const name of ["pointerover", "focusin"]) by("pick-files").closest("form").addEventListener(name, () => void import("./job.js"), { once: true });

/** @param {Found} one @returns {one is Picked} */
const isPicture = (one) => !!one.file && (!one.path.includes("/") || PICTURES.test(one.file.name) || one.file.type.startsWith("image/"));

/**
 * Pictures of a folder, and how many other files were left out. A file chosen by itself is always tried: its
 * type is told by content (`File.type` is empty for HEIC in most browsers).
 * @param {Found[]} picked
 */
function picturesOf(picked) {
  const visible = picked.filter(({ path }) => !path.split("/").some((part) => SYSTEM.test(part)));
  const pictures = visible.filter(isPicture);
  return { pictures: sorted(pictures), others: visible.length - pictures.length };
}

/**
 * All files of a drop, folders read to their end.
 * @param {DataTransfer} transfer read at once: it is empty after the event
 * @param {(one: Picked) => void} onFound
 * @returns {Promise<Found[]>}
 */
async function fromDrop(transfer, onFound) {
  const entries = [...transfer.items].filter((item) => item.kind === "file").map((item) => item.webkitGetAsEntry() ?? item.getAsFile());
  /** @type {Found[]} */
  const picked = [];
  for (const entry of entries) {
    if (entry instanceof File) picked.push({ file: entry, path: entry.name });
    else if (entry) await walk(entry, picked, onFound);
  }
  return picked;
}

/** @param {FileSystemEntry} entry @param {Found[]} picked @param {(one: Picked) => void} onFound */
async function walk(entry, picked, onFound) {
  if (SYSTEM.test(entry.name)) return;
  const path = entry.fullPath.replace(/^\//, "");
  try {
    if (entry.isFile) {
      const file = await new Promise((resolve, reject) => /** @type {FileSystemFileEntry} */ (entry).file(resolve, reject));
      picked.push({ file, path });
      onFound({ file, path });
      return;
    }
    const reader = /** @type {FileSystemDirectoryEntry} */ (entry).createReader();
    for (;;) {
      // One call gives 100 entries at most: read until it gives none.
      const some = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
      if (!some.length) return;
      for (const one of some) await walk(one, picked, onFound);
    }
  } catch {
    // Forbidden, or gone meanwhile: skipped, and counted.
    picked.push({ file: null, path });
  }
}

recent.draw();
if (state.id) void job();
