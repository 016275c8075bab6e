// coatcheck's browser client: uploads that go when their user does.
//
// The session is made on the server with its first file, is touched while the page is visible, and is
// deleted when the page is left, unless it was kept or claimed. Its id stays in memory.

const AT_ONCE = 3; // uploads; a browser has six connections to a host, and a touch must not wait
const TRIES = 5; // of what is answered 503
const LONGEST_MS = 86_400_000; // of a timer
const ENDED = "The session has ended: resend() sends its files again.";
const CLAIMED = /^The session has ended: claimed /;
const UNREACHABLE = "The service cannot be reached, or lets no page of this origin in.";

/** What went wrong, in words; the answer's status, 0 without one. */
export class CoatcheckError extends Error {
  name = "CoatcheckError";

  constructor(detail, status = 0, retryAfter = null) {
    super(detail);
    this.status = status;
    this.retryAfter = retryAfter;
  }
}

export class CoatcheckSession extends EventTarget {
  #base;
  #label;
  #state = "new";
  #kept = false;
  #left = null; // why it ended, until the page that was left is told
  #life = null; // the session on the server; after it has ended, resend() begins another
  #files = new Map(); // name -> entry; in memory as long as they may have to be sent again
  #running = 0;
  #waiting = new Set();
  #deaf = new AbortController();

  constructor({ base = new URL("../api/v1/upload", import.meta.url), label = "" } = {}) {
    super();
    this.#base = new URL(base, document.baseURI).href.replace(/\/+$/, "");
    this.#label = label;
    const { signal } = this.#deaf;
    addEventListener("pagehide", () => this.#leave(), { signal });
    addEventListener("pageshow", (event) => event.persisted && this.#comeBack(), { signal });
    document.addEventListener("visibilitychange", () => this.#touchIfVisible(), { signal });
  }

  /** "new", "active", "claimed", "discarded" or "ended". */
  get state() { return this.#state; }

  /** The right to use the session, to be handed to the backend; null before the first file. */
  get id() { return this.#life?.id ?? null; }

  /** When it is stale unless it is touched before, by this machine's clock; null before the first file. */
  get expiresAt() { return this.#life?.deadline ? new Date(this.#life.deadline) : null; }

  /** What was uploaded, is on its way ("sending"), or is to be sent again ("lost"). */
  get files() {
    return [...this.#files].map(([name, { file, state }]) => ({ name, bytes: file.size, state }));
  }

  /** Makes the session without a file, for who uploads by other means; its URL. */
  async open() {
    this.#refuseWhenOver();
    return (await this.#begun()).url;
  }

  /** Uploads one file, whole or not at all. A name that is taken is numbered. */
  async upload(file, { name = file.name || "file", onProgress, signal } = {}) {
    signal?.throwIfAborted();
    this.#refuseWhenOver();
    return this.#store(this.#freeName(name), file, onProgress, signal);
  }

  /** After "ended": sends the files again, into a new session. What fails may be sent once more. */
  async resend({ onProgress, signal } = {}) {
    if (this.#state === "ended") this.#state = "new";
    this.#refuseWhenOver();
    this.#left = null;
    const lost = [...this.#files].filter(([, entry]) => entry.state === "lost");
    const outcomes = await Promise.allSettled(
      lost.map(([name, entry]) => this.#store(name, entry.file, onProgress, signal, entry)),
    );
    const failed = outcomes.find((outcome) => outcome.status === "rejected");
    if (failed) throw failed.reason;
    return outcomes.map((outcome) => outcome.value);
  }

  /** Takes one file out again. */
  async remove(name) {
    const entry = this.#files.get(name);
    if (entry?.state === "sending") throw new CoatcheckError(`'${name}' is on its way: abort it.`);
    if (entry?.state !== "lost") {
      const life = await this.#standing();
      try {
        await this.#ask(life, "DELETE", fileUrl(life, name));
      } catch (error) {
        if (error.status !== 404) throw error;
        await this.touch(); // the file is gone, which is as wished, or the session is
      }
    }
    this.#files.delete(name);
  }

  /** Says that the user is still here. The session does so itself while the page is visible. */
  async touch() {
    const life = await this.#standing();
    this.#wasTouched(life, await this.#ask(life, "POST", `${life.url}/touch`));
  }

  /** The page hands the session over: leaving it no longer discards it. */
  keep() { this.#kept = true; }

  /** Hands the session over to the backend, under this name below the claims directory. */
  async claim(into) {
    const life = await this.#standing();
    const before = this.#kept;
    this.#kept = true; // should the user leave before the answer is there
    try {
      const claiming = { body: JSON.stringify({ into }), headers: { "Content-Type": "application/json" } };
      const claimed = await this.#ask(life, "POST", `${life.url}/claim`, claiming);
      this.#close("claimed");
      return claimed;
    } catch (error) {
      this.#kept = before;
      throw error;
    }
  }

  /** Deletes the session with its files. */
  async discard() {
    if (this.#state === "claimed") throw new CoatcheckError("The session was claimed.");
    const life = this.#life;
    life?.over.abort(new CoatcheckError("The session was discarded."));
    if (life?.url) {
      const deleting = patiently(this, () => fetched("DELETE", life.url, { keepalive: true }));
      await deleting.catch((error) => {
        if (error.status !== 404) throw error;
      });
    }
    this.#close("discarded");
  }

  // The session on the server

  #refuseWhenOver() {
    if (this.#state === "claimed" || this.#state === "discarded") {
      throw new CoatcheckError(`The session was ${this.#state}: make a new one.`);
    }
    if (this.#state === "ended") throw new CoatcheckError(ENDED, 410);
  }

  async #standing() {
    this.#refuseWhenOver();
    if (!this.#life) throw new CoatcheckError("There is no session yet: upload a file first.");
    return this.#life.begun;
  }

  /** The session's life, made where there was none; several uploads at once make one. */
  #begun() {
    if (!this.#life) {
      const life = { over: new AbortController(), making: new AbortController(), url: "", id: null, deadline: 0 };
      this.#life = life;
      life.begun = this.#create(life);
      life.begun.catch(() => {}); // those who wait for it are told
    }
    return this.#life.begun;
  }

  async #create(life) {
    try {
      const body = this.#label ? new FormData() : null;
      body?.set("label", this.#label);
      const creating = () => fetched("POST", this.#base, { body, signal: life.making.signal });
      const made = await patiently(this, creating, life.over.signal);
      Object.assign(life, { id: made.session_id, url: `${this.#base}/${made.session_id}` });
      if (life.over.signal.aborted) sayGoodbye(life.url);
      life.over.signal.throwIfAborted();
      this.#state = "active";
      this.#wasTouched(life, made);
      return life;
    } catch (error) {
      if (this.#life === life) this.#life = null;
      throw life.over.signal.reason ?? error;
    }
  }

  async #ask(life, method, url, options) {
    try {
      return await patiently(this, () => fetched(method, url, options), life.over.signal);
    } catch (error) {
      if (error.status === 410 || (error.status === 404 && method !== "DELETE")) this.#end(life, error);
      throw error;
    }
  }

  // Its files

  #freeName(name) {
    const dot = name.lastIndexOf(".") > 0 ? name.lastIndexOf(".") : name.length;
    let free = name;
    for (let n = 1; this.#files.has(free); n++) free = `${name.slice(0, dot)} (${n})${name.slice(dot)}`;
    return free;
  }

  /** Stores a file; should that fail, the entry `otherwise` takes its place in memory. */
  async #store(name, file, onProgress, signal, otherwise) {
    const entry = { file, state: "sending" };
    this.#files.set(name, entry);
    onProgress?.({ name, loaded: 0, total: file.size });
    try {
      const url = await this.#inTurn(() => this.#send(name, entry, onProgress, signal), signal);
      if (entry.state === "sending") entry.state = "stored";
      return { name, bytes: file.size, url };
    } catch (error) {
      if (entry.state === "sending" && otherwise) this.#files.set(name, otherwise);
      else if (entry.state === "sending") this.#files.delete(name);
      throw error;
    }
  }

  async #inTurn(act, signal) {
    while (this.#running >= AT_ONCE) {
      await unless(signal, new Promise((resolve) => this.#waiting.add(resolve)));
    }
    this.#running += 1;
    try {
      return await act();
    } finally {
      this.#running -= 1;
      this.#waiting.forEach((wake) => wake());
      this.#waiting.clear();
    }
  }

  async #send(name, entry, onProgress, signal) {
    this.#refuseWhenOver();
    if (entry.state !== "sending") throw new CoatcheckError(ENDED, 410); // resend() has it already
    const life = await unless(signal, this.#begun());
    const url = fileUrl(life, name);
    const stop = signal ? AbortSignal.any([signal, life.over.signal]) : life.over.signal;
    stop.throwIfAborted();
    let sending;
    const tell = (loaded) => onProgress?.({ name, loaded, total: entry.file.size });
    const put = () => (sending = sent(url, entry.file, tell, stop)).answer;
    try {
      await patiently(this, put, stop);
    } catch (error) {
      if (signal?.aborted && !life.over.signal.aborted) await takenBack(url, sending);
      if (error.status === 410 || error.status === 404) this.#end(life, error);
      throw error;
    }
    this.#wasTouched(life);
    return url;
  }

  // Time, and the end

  #wasTouched(life, told) {
    if (told) life.lifetime = Date.parse(told.expires_at) - Date.parse(told.last_touch_at);
    life.deadline = Date.now() + life.lifetime; // its clock need not be ours
    this.#schedule(life);
  }

  /** The next touch comes halfway to the end; again and again should it fail. */
  #schedule(life) {
    clearTimeout(life.timer);
    if (this.#life !== life || document.visibilityState !== "visible") return;
    const wait = Math.max((life.deadline - Date.now()) / 2, Math.min(life.lifetime / 10, 5000));
    life.timer = setTimeout(() => this.#touchIfVisible(), Math.min(wait, LONGEST_MS));
  }

  #touchIfVisible() {
    const life = this.#life;
    if (!life?.url || document.visibilityState !== "visible") return;
    this.touch().catch(() => this.#schedule(life));
  }

  #leave() {
    const life = this.#life;
    if (!life || this.#kept) return;
    if (life.url) sayGoodbye(life.url); // before its uploads are cut: so the server sees it first
    else life.making.abort(); // which the server sees, and makes none
    this.#left = new CoatcheckError("The page was left, so its files were deleted.", 410);
    this.#part(life, this.#left);
  }

  #comeBack() {
    const left = this.#left;
    this.#left = null;
    if (left) this.#tellEnd(left);
  }

  #end(life, reason) {
    if (this.#life !== life || life.over.signal.aborted) return;
    if (this.#kept && CLAIMED.test(reason.message)) return this.#close("claimed"); // as was meant
    this.#part(life, reason);
    this.#tellEnd(reason);
  }

  #part(life, reason) {
    this.#state = "ended";
    this.#life = null;
    clearTimeout(life.timer);
    for (const entry of this.#files.values()) entry.state = "lost";
    life.over.abort(reason);
  }

  #tellEnd(reason) {
    this.dispatchEvent(new CustomEvent("ended", { detail: reason.message }));
  }

  #close(state) {
    clearTimeout(this.#life?.timer);
    this.#state = state;
    this.#life = null;
    this.#files.clear();
    this.#deaf.abort();
  }
}

const fileUrl = (life, name) => `${life.url}/files/${encodeURIComponent(name)}`;

/** Deletes a session while its page goes: across origins, only a beacon needs no preflight. */
function sayGoodbye(url) {
  const isOurs = new URL(url).origin === location.origin;
  const outlives = isOurs && "keepalive" in Request.prototype;
  if (outlives) fetch(url, { method: "DELETE", keepalive: true }).catch(() => {});
  else navigator.sendBeacon(`${url}/discard`);
}

/** An abort may come when the last byte has gone: then the file is stored all the same. */
async function takenBack(url, sending) {
  await sending?.over;
  await fetched("DELETE", url).catch(() => {});
}

/** What `act` gives; while it is answered 503 with Retry-After, it is tried again then. */
async function patiently(session, act, signal) {
  for (let tries = TRIES; ; tries--) {
    try {
      return await act();
    } catch (error) {
      const seconds = error.retryAfter ?? null;
      if (error.status !== 503 || seconds === null || tries <= 1) throw error;
      session.dispatchEvent(new CustomEvent("retry", { detail: { reason: error.message, seconds } }));
      await unless(signal, new Promise((resolve) => setTimeout(resolve, seconds * 1000)));
    }
  }
}

/** What comes of the promise, unless the signal's reason comes before. */
function unless(signal, promise) {
  if (!signal) return promise;
  return new Promise((resolve, reject) => {
    const stop = () => reject(signal.reason);
    if (signal.aborted) stop();
    signal.addEventListener("abort", stop, { once: true });
    promise.then(resolve, reject).finally(() => signal.removeEventListener("abort", stop));
  });
}

async function fetched(method, url, options = {}) {
  const answer = await fetch(url, { method, ...options }).catch(() => {
    throw new CoatcheckError(UNREACHABLE);
  });
  if (!answer.ok) throw refusal(answer.status, await answer.text(), answer.headers.get("Retry-After"));
  return answer.status === 204 ? null : answer.json();
}

/** A file on its way by PUT: the `answer`, or why there is none, and when all is `over`. */
function sent(url, file, tell, signal) {
  const request = new XMLHttpRequest(); // fetch tells no progress
  const over = new Promise((resolve) => (request.onloadend = resolve));
  const answer = new Promise((resolve, reject) => {
    let isSent = false;
    const stop = () => {
      reject(signal.reason);
      if (!isSent) request.abort();
    };
    request.open("PUT", url);
    request.upload.onprogress = (event) => tell(event.loaded);
    request.upload.onload = () => (isSent = true);
    request.onerror = () => reject(new CoatcheckError(UNREACHABLE));
    request.onload = () => {
      if (request.status < 300) resolve(tell(file.size));
      else reject(refusal(request.status, request.responseText, request.getResponseHeader("Retry-After")));
    };
    signal.addEventListener("abort", stop, { once: true });
    over.then(() => signal.removeEventListener("abort", stop));
    request.send(file);
  });
  return { answer, over };
}

function refusal(status, text, retryAfter) {
  let detail = `The service answered ${status}.`;
  try {
    detail = JSON.parse(text).detail ?? detail;
  } catch {} // a proxy's answer, not the service's
  const seconds = retryAfter === null ? null : Math.min(Number(retryAfter) || 5, 60);
  return new CoatcheckError(detail, status, seconds);
}
