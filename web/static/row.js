// One file on the page: what is told of it, and what its two buttons do.

const UNITS = ["bytes", "kB", "MB", "GB", "TB"];
const number = new Intl.NumberFormat("en", { maximumSignificantDigits: 3 });

export function sizeInWords(bytes) {
  let unit = 0;
  let value = bytes;
  for (; value >= 999.5 && unit < UNITS.length - 1; unit++) value /= 1000;
  return unit === 0 && bytes === 1 ? "1 byte" : `${number.format(value)} ${UNITS[unit]}`;
}

export class Row {
  name = ""; // under which it is stored; the session says so as soon as it has the file
  state = "";
  #cancelling = null;

  constructor(file, page) {
    this.file = file;
    this.page = page;
    const copy = document.getElementById("row").content.cloneNode(true);
    this.item = copy.querySelector("li");
    this.#part(".out").addEventListener("click", () => this.out());
    this.#part(".again").addEventListener("click", () => this.send());
    this.#tellName(file.name);
  }

  #part(selector) {
    return this.item.querySelector(selector);
  }

  #tellName(name) {
    this.name = name;
    this.#part(".name").textContent = name;
    this.#part(".again").setAttribute("aria-label", `Try again to send ${name}`);
    this.#part("progress").setAttribute("aria-label", `Progress of ${name}`);
  }

  #show(state, words = "") {
    this.state = this.item.className = state;
    this.#part(".state").textContent = words;
    this.#part(".size").textContent = sizeInWords(this.file.size);
    this.#part(".again").hidden = state !== "failed";
    if (state === "sending") this.#part("progress").value = 0;
    const out = this.#part(".out");
    out.hidden = state === "sending" && !this.#cancelling;
    out.textContent = { sending: "Cancel", stored: "Take out" }[state] ?? "Forget";
    out.setAttribute("aria-label", `${out.textContent} ${this.name}`);
    this.page.changed();
  }

  /** Uploads the file, and shows how far it is. */
  async send() {
    this.#cancelling = new AbortController();
    const { signal } = this.#cancelling;
    this.#show("sending");
    try {
      await this.page.session.upload(this.file, { onProgress: (progress) => this.tell(progress), signal });
      this.keep();
    } catch (error) {
      if (signal.aborted) this.#remove();
      else if (error.status === 410) this.lose();
      else this.#show("failed", error.message);
    } finally {
      this.#cancelling = null;
    }
  }

  /** It is being sent again, with all others: it cannot be cancelled alone. */
  resent() {
    this.#show("sending");
  }

  tell({ name, loaded, total }) {
    if (name !== this.name) {
      this.#tellName(name);
      this.#show("sending");
    }
    this.#part("progress").value = total ? loaded / total : 0;
    this.#part(".size").textContent = `${sizeInWords(loaded)} of ${sizeInWords(total)}`;
  }

  keep() {
    this.#show("stored");
  }

  lose() {
    this.#show("lost", "Deleted on the server; still on your device.");
  }

  /** Cancels it, takes it out, or forgets it. */
  async out() {
    if (this.state === "sending") {
      this.#cancelling?.abort();
    } else if (this.state === "failed") {
      this.#remove();
    } else {
      try {
        await this.page.session.remove(this.name);
        this.#remove();
      } catch (error) {
        if (error.status !== 410) this.#part(".state").textContent = error.message;
      }
    }
  }

  #remove() {
    const next = this.item.nextElementSibling ?? this.item.previousElementSibling;
    const hadFocus = this.item.contains(document.activeElement);
    this.item.remove();
    this.page.removed(this);
    if (hadFocus) (next?.querySelector(".out") ?? document.getElementById("choose")).focus();
  }
}
