// @ts-check
// Results as they come: server-sent events read by fetch, so that silence is seen and the last id survives a reload.

import { root } from "./words.js";

const RETRY_MS = 1000;
/** The server pings every 15 s. */
const SILENCE_MS = 40_000;
const HIDDEN_MS = 30_000;
const POLL_MS = 5000;

/**
 * Follows one job until it is done.
 * @param {string} id
 * @param {{ results: (results: any[]) => void, job: (job: any) => void, interrupted: (is: boolean) => void, gone: (status: number) => void,
 *   frontier: () => number }} told whom; the frontier is the smallest number that has no result yet
 * @returns {() => void} stops it
 */
export function follow(id, told) {
  const address = `${root}/api/jobs/${id}`;
  let lastId = "";
  let failures = 0;
  let stopped = false;
  /** @type {AbortController | null} */
  let current = null;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  let timer;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  let hiding;

  async function connect() {
    if (stopped || current) return;
    const mine = new AbortController();
    current = mine;
    let watchdog = setTimeout(() => mine.abort(), SILENCE_MS);
    try {
      const answer = await fetch(`${address}/events`, {
        headers: { Accept: "text/event-stream", ...(lastId && { "Last-Event-ID": lastId }) }, signal: mine.signal, cache: "no-store",
      });
      if (answer.status === 204) {
        // All results were delivered before; that the job has ended may not have been.
        await ask();
        return finish();
      }
      if ([401, 404, 410].includes(answer.status)) {
        finish();
        return told.gone(answer.status);
      }
      if (!answer.ok || !answer.body) throw new Error(String(answer.status));
      const read = parser(heard);
      const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
      for (;;) {
        const { done, value } = await reader.read();
        if (done) break;
        clearTimeout(watchdog);
        watchdog = setTimeout(() => mine.abort(), SILENCE_MS);
        failures = 0;
        told.interrupted(false);
        read(value);
      }
    } catch {
      // Cut, silent or refused: tried again below, unless we cut it ourselves.
    } finally {
      clearTimeout(watchdog);
      if (current === mine) current = null;
    }
    again();
  }

  function again() {
    if (stopped || current || document.visibilityState === "hidden") return;
    failures++;
    if (failures > 3) void poll();
    clearTimeout(timer);
    timer = setTimeout(connect, failures > 3 ? POLL_MS : RETRY_MS);
  }

  /** Without a stream: what is there from the frontier on, asked for. */
  async function poll() {
    told.interrupted(true);
    try {
      for (let after = told.frontier() - 1; ;) {
        const answer = await fetch(`${address}/results?limit=200&after=${after}`);
        const { results, next } = await answer.json();
        if (!answer.ok || stopped) return;
        told.results(results.map(summary));
        if (next == null) break;
        after = next;
      }
      await ask();
    } catch {
      // The service is away: the tiles stay, and the next round asks again.
    }
  }

  /** How far the job is, asked for; throws where no answer comes. */
  async function ask() {
    const answer = await fetch(address);
    if (!answer.ok) throw new Error(String(answer.status));
    told.job(await answer.json());
  }

  /** @param {{ event: string, data: string, id: string | null }} message */
  function heard({ event, data, id }) {
    if (id !== null) lastId = id;
    if (!data) return;
    const body = JSON.parse(data);
    if (event === "results") told.results(body.results);
    if (event === "state" || event === "done") told.job(body);
    if (event === "done") finish();
  }

  function finish() {
    stopped = true;
    clearTimeout(timer);
    clearTimeout(hiding);
    document.removeEventListener("visibilitychange", seen);
    removeEventListener("pageshow", shown);
    removeEventListener("online", shown);
    current?.abort();
  }

  // A hidden page lets go of its connection: a host of HTTP/1.1 has six of them for all tabs.
  function seen() {
    clearTimeout(hiding);
    if (document.visibilityState === "hidden") hiding = setTimeout(() => current?.abort(), HIDDEN_MS);
    else shown();
  }

  function shown() {
    if (document.visibilityState === "hidden") return;
    clearTimeout(timer);
    void connect();
  }

  document.addEventListener("visibilitychange", seen);
  addEventListener("pageshow", shown);
  addEventListener("online", shown);
  void connect();
  return finish;
}

/** A record as the stream tells it. @param {any} record */
function summary(record) {
  const [top] = record.labels;
  return {
    number: record.number, name: record.image.name, status: record.status, label: top?.label ?? null,
    confidence: top?.confidence ?? null, sure: record.sure, hedged: record.hedged?.label ?? null, error: record.error?.code ?? null,
  };
}

/**
 * A reader of event streams as our service writes them (a line of data, "\n" at its end): call it with text as it comes.
 * @param {(message: { event: string, data: string, id: string | null }) => void} heard
 */
function parser(heard) {
  const blank = () => /** @type {any} */ ({ event: "", data: "", id: null });
  let rest = "";
  let message = blank();
  return (/** @type {string} */ text) => {
    const lines = (rest + text).split("\n");
    rest = lines.pop() ?? "";
    for (const line of lines) {
      const [field] = line.split(":", 1);
      if (!line) {
        heard(message);
        message = blank();
      } else if (field in message) {
        message[field] = line.slice(field.length + 2);
      }
    }
  };
}
