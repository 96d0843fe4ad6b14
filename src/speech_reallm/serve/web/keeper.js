// Keeps the transcript on the page in this browser, and lists the earlier ones.

import { clock } from "./clock.js";
import { Storage } from "./storage.js";

const SAVE_MS = 1500;
const SETTING = "keep-transcripts";

export class Keeper {
  /** transcript; dialog with a list, a checkbox and a button to delete all; onOpen(data); onKept(): all is stored. */
  constructor({ transcript, dialog, onOpen, onKept }) {
    Object.assign(this, { transcript, dialog, onOpen, onKept, storage: null });
    this.begin();
    this.box = dialog.querySelector("input[type=checkbox]");
    this.list = dialog.querySelector("ul");
    this.opened = Storage.open().then((storage) => (this.storage = storage));
    this.box.checked = setting() !== "no";
    this.box.onchange = () => {
      keepSetting(this.box.checked ? "yes" : "no");
      this.changed();
    };
    dialog.querySelector("[value=delete-all]").onclick = async () => {
      await this.storage?.clear();
      this.forget();
      await this.show();
    };
  }

  /** A new transcript begins. */
  begin() {
    this.id = `${Date.now().toString(36)}-${Math.random().toString(36).slice(2)}`;
    this.created = Date.now();
    clearTimeout(this.timer);
    this.timer = null;
  }

  /** The transcript on the page was deleted from the browser: from now on it counts as another one, not kept. */
  forget() {
    this.begin();
    this.dropped = true;
  }

  get on() {
    return Boolean(this.storage) && this.box.checked;
  }

  /** The transcript has grown. */
  changed() {
    this.dropped = false;
    this.timer ??= setTimeout(() => this.save(), SAVE_MS);
  }

  async save() {
    clearTimeout(this.timer);
    this.timer = null;
    await this.opened;
    if (!this.on || this.transcript.empty || this.dropped) return;
    const count = this.transcript.words.length;
    try {
      await this.storage.put(this.id, this.created, this.transcript.toData());
      if (count === this.transcript.words.length) this.onKept();
    } catch (error) {
      // a full disk, perhaps: the page asks before it loses anything, as without storage
      console.warn("the transcript is not kept in this browser:", error);
    }
  }

  async show() {
    await this.opened;
    const all = (await this.storage?.list()) ?? [];
    this.list.replaceChildren(...all.map((summary) => this.row(summary)));
    this.dialog.classList.toggle("none", !all.length);
    this.dialog.classList.toggle("impossible", !this.storage);
    if (!this.dialog.open) this.dialog.showModal();
  }

  row({ id, name, created, duration, count, text }) {
    const row = document.createElement("li");
    const title = document.createElement("p");
    const when = new Date(created).toLocaleString([], { dateStyle: "medium", timeStyle: "short" });
    title.textContent = name ?? "Microphone";
    const facts = document.createElement("p");
    facts.className = "facts";
    facts.textContent = `${when} · ${clock(duration)} · ${count} ${count === 1 ? "word" : "words"}`;
    const begin = document.createElement("p");
    begin.className = "begin";
    begin.textContent = text;
    const open = button("Open", `Open ${title.textContent}, ${when}`, async () => {
      const data = await this.storage.get(id);
      if (!data || (await this.onOpen(data)) === false) return;
      this.begin();
      Object.assign(this, { id, created });
      this.dialog.close();
    });
    const remove = button("Delete", `Delete ${title.textContent}, ${when}`, async () => {
      await this.storage.remove(id);
      if (id === this.id) this.forget();
      await this.show();
    });
    remove.className = "danger";
    const buttons = document.createElement("div");
    buttons.className = "buttons";
    buttons.append(open, remove);
    row.append(title, facts, begin, buttons);
    return row;
  }
}

function button(text, label, onclick) {
  const made = document.createElement("button");
  Object.assign(made, { type: "button", textContent: text, onclick });
  made.setAttribute("aria-label", label);
  return made;
}

function setting() {
  try {
    return localStorage.getItem(SETTING);
  } catch {
    return null;
  }
}

function keepSetting(value) {
  try {
    localStorage.setItem(SETTING, value);
  } catch {
    // a browser that keeps nothing
  }
}
