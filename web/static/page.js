// The page at /: a session's whole life, by coatcheck.js alone.

import { CoatcheckSession } from "./coatcheck.js";
import { Row, sizeInWords } from "./row.js";

const ASK_AGAIN_MS = 5000;
const at = (id) => document.getElementById(id);

class Page {
  rows = new Set();
  session = null;
  #isRetrying = false;

  constructor() {
    at("choose").addEventListener("change", () => this.#chosen());
    at("claim").addEventListener("submit", (event) => this.#claim(event));
    at("discard").addEventListener("click", () => this.#discard());
    at("resend").addEventListener("click", () => this.#resend());
    at("anew").addEventListener("click", () => this.#anew());
    this.#takeDrops();
    this.#begin();
    setInterval(() => this.#tellTime(), 1000);
    this.#askWhetherReady();
  }

  #begin() {
    this.session = new CoatcheckSession();
    this.session.addEventListener("ended", (event) => this.#ended(event.detail));
    this.session.addEventListener("retry", ({ detail }) => {
      this.#isRetrying = true;
      this.#tellTrouble(`${detail.reason}\nIt is tried again in ${detail.seconds} seconds.`);
    });
    at("outcome").hidden = true;
    at("outcome").className = "card";
    at("hand-in").hidden = false;
    this.changed();
  }

  // Files

  add(files) {
    const rows = files.map((file) => new Row(file, this));
    for (const row of rows) {
      this.rows.add(row);
      at("list").append(row.item);
      row.send();
    }
    say(`${files.length} ${files.length === 1 ? "file is" : "files are"} being sent.`);
  }

  #chosen() {
    this.add([...at("choose").files]);
    at("choose").value = ""; // the same file may be chosen again
  }

  #takeDrops() {
    const holdsFiles = (event) => event.dataTransfer?.types.includes("Files");
    addEventListener("dragover", (event) => {
      if (!holdsFiles(event)) return;
      event.preventDefault();
      const takes = !at("hand-in").hidden;
      event.dataTransfer.dropEffect = takes ? "copy" : "none";
      document.body.classList.toggle("dragging", takes);
    });
    addEventListener("dragleave", (event) => {
      if (!event.relatedTarget) document.body.classList.remove("dragging");
    });
    addEventListener("drop", (event) => {
      if (!holdsFiles(event)) return;
      event.preventDefault();
      document.body.classList.remove("dragging");
      if (!at("hand-in").hidden) this.#dropped([...event.dataTransfer.items]);
    });
  }

  #dropped(items) {
    const files = items.filter((item) => item.kind === "file");
    const isFolder = (item) => item.webkitGetAsEntry?.()?.isDirectory;
    const folders = files.filter(isFolder);
    this.add(files.filter((item) => !isFolder(item)).map((item) => item.getAsFile()));
    if (folders.length) this.#tellTrouble("A folder cannot be handed in: choose the files in it.");
  }

  removed(row) {
    this.rows.delete(row);
    this.changed();
    say(`${row.name} is taken out.`);
  }

  /** What depends on all files and on the session is shown anew. */
  changed() {
    const rows = [...this.rows];
    const { state } = this.session;
    const isBusy = rows.some((row) => row.state === "sending");
    const isMissing = rows.some((row) => row.state === "lost");
    const stored = rows.filter((row) => row.state === "stored");
    const bytes = stored.reduce((sum, row) => sum + row.file.size, 0);
    at("files").hidden = rows.length === 0;
    const number = stored.length === rows.length ? rows.length : `${stored.length} of ${rows.length}`;
    at("sum").textContent = `${number} ${rows.length === 1 ? "file" : "files"} · ${sizeInWords(bytes)}`;
    at("handing-over").hidden = state !== "active";
    at("claim").querySelector("button").disabled = isBusy || isMissing || stored.length === 0;
    at("resend").hidden = !isMissing;
    document.body.classList.toggle("busy", rows.length > 0);
    if (this.#isRetrying && state === "active" && !isBusy) this.#tellTrouble("");
    this.#tellTime();
  }

  // The session

  async #claim(event) {
    event.preventDefault();
    const into = at("into").value.trim();
    const words = at("claim-words");
    try {
      await this.session.claim(into);
      const bytes = [...this.rows].reduce((sum, row) => sum + row.file.size, 0);
      const number = this.rows.size === 1 ? "1 file" : `${this.rows.size} files`;
      this.#over("Claimed", `${number}, ${sizeInWords(bytes)}, are kept as “${into}”.`);
      at("into").value = "";
      words.className = "muted";
      words.textContent = "Then they are kept, in the claims directory.";
    } catch (error) {
      const isNotOurs = error.status === 401 || error.status === 403;
      words.className = "failed";
      words.textContent = isNotOurs
        ? `Claiming is the operator's here, not this page's. ${error.message}`
        : error.message;
      say(words.textContent);
    }
  }

  async #discard() {
    try {
      await this.session.discard();
      this.#over("Discarded", "Your files are deleted, and nothing of them is left here.");
    } catch (error) {
      this.#tellTrouble(error.message);
    }
  }

  #ended(reason) {
    for (const row of this.rows) if (row.state !== "failed") row.lose();
    const files = this.rows.size ? " Your device still has the files: they can be sent again." : "";
    this.#tellOutcome("The session has ended", reason + files);
  }

  async #resend() {
    const lost = [...this.rows].filter((row) => row.state === "lost");
    const byName = new Map(lost.map((row) => [row.name, row]));
    at("outcome").hidden = true;
    at("hand-in").hidden = false;
    at("choose").focus();
    for (const row of lost) row.resent();
    const onProgress = (progress) => byName.get(progress.name)?.tell(progress);
    const failure = await this.session.resend({ onProgress }).then(() => null, (error) => error);
    const states = new Map(this.session.files.map(({ name, state }) => [name, state]));
    for (const row of lost) states.get(row.name) === "stored" ? row.keep() : row.lose();
    if (failure && this.session.state !== "ended") {
      this.#tellOutcome("Not all files could be sent", failure.message);
    }
  }

  #anew() {
    for (const row of this.rows) row.item.remove();
    this.rows.clear();
    if (this.session.state !== "claimed") this.session.discard().catch(() => {});
    this.#begin();
    at("choose").focus();
  }

  #over(head, words) {
    at("outcome").classList.add("good");
    for (const row of this.rows) row.item.remove();
    this.rows.clear();
    this.#tellOutcome(head, words);
  }

  #tellOutcome(head, words) {
    at("outcome-head").textContent = head;
    at("outcome-words").textContent = words;
    at("outcome").hidden = false;
    at("hand-in").hidden = true;
    this.changed();
    at("outcome").focus();
  }

  // What else there is to tell

  #tellTime() {
    const until = this.session.expiresAt;
    if (until) at("time-left").textContent = timeInWords((until - Date.now()) / 1000);
  }

  #tellTrouble(words) {
    if (!words) this.#isRetrying = false;
    at("trouble").textContent = words;
    at("trouble").hidden = !words;
  }

  /** Says in words what the service lacks, and asks until it has it. */
  async #askWhetherReady() {
    const answer = await fetch("readyz").catch(() => null);
    const told = answer?.status === 503 ? await answer.json() : null;
    const words = told ? (told.root ?? told.ledger ?? told.detail) : "";
    if (words || told) {
      this.#tellTrouble(`Nothing can be handed in now. ${words}`);
      setTimeout(() => this.#askWhetherReady(), ASK_AGAIN_MS);
    } else {
      this.#tellTrouble("");
    }
  }
}

function timeInWords(seconds) {
  const left = Math.max(0, Math.round(seconds));
  if (left < 60) return `${left} s`;
  if (left < 3600) return `${Math.floor(left / 60)} min`;
  if (left < 172_800) return `${Math.floor(left / 3600)} h ${Math.floor((left % 3600) / 60)} min`;
  return `${Math.floor(left / 86_400)} days`;
}

function say(words) {
  at("said").textContent = words;
}

new Page();
