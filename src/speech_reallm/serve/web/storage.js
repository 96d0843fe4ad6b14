// Transcripts kept in this browser (IndexedDB). The oldest make way; sound is not kept.

const DATABASE = "speech-reallm";
const MAX_TRANSCRIPTS = 50;
// about 15 MB
const MAX_WORDS = 300000;
const OPEN_MS = 3000;

export class Storage {
  /** Resolves with a Storage, or with null where the browser has none (in some private windows, for example). */
  static open() {
    return new Promise((resolve) => {
      let request;
      try {
        request = indexedDB.open(DATABASE, 1);
      } catch {
        return resolve(null);
      }
      setTimeout(() => resolve(null), OPEN_MS);
      request.onerror = request.onblocked = () => resolve(null);
      request.onupgradeneeded = () => {
        request.result.createObjectStore("summaries", { keyPath: "id" });
        request.result.createObjectStore("transcripts", { keyPath: "id" });
      };
      request.onsuccess = () => {
        const storage = new Storage();
        storage.database = request.result;
        // another tab may delete or renew the database
        storage.database.onversionchange = () => storage.database.close();
        resolve(storage);
      };
    });
  }

  /** data: of Transcript.toData. Rejects where there is no room. */
  async put(id, created, data) {
    const count = data.segments.reduce((sum, { words }) => sum + words.length, 0);
    const text = data.segments.map((segment) => segment.text).join(" ");
    const { name, duration } = data;
    await this.run("readwrite", (summaries, transcripts) => {
      summaries.put({ id, name, created, duration, count, text: text.slice(0, 160) });
      transcripts.put({ id, ...data });
    });
    await this.makeRoom(id);
  }

  /** Deletes the oldest until the rest is within the limits; never `id`. */
  async makeRoom(id) {
    const all = await this.list();
    let words = 0;
    const surplus = all.filter((summary, i) => (words += summary.count) > MAX_WORDS || i >= MAX_TRANSCRIPTS);
    for (const summary of surplus) if (summary.id !== id) await this.remove(summary.id);
  }

  /** [{id, name, created, duration, count, text: its beginning}], the newest first. */
  async list() {
    const all = await this.run("readonly", (summaries) => summaries.getAll());
    return all.sort((a, b) => b.created - a.created);
  }

  /** What was put there, or undefined. */
  get(id) {
    return this.run("readonly", (_, transcripts) => transcripts.get(id));
  }

  remove(id) {
    return this.run("readwrite", (summaries, transcripts) => {
      summaries.delete(id);
      transcripts.delete(id);
    });
  }

  clear() {
    return this.run("readwrite", (summaries, transcripts) => {
      summaries.clear();
      transcripts.clear();
    });
  }

  /** work(summaries, transcripts) in one transaction; resolves with the result of the request that it returns. */
  run(mode, work) {
    return new Promise((resolve, reject) => {
      const transaction = this.database.transaction(["summaries", "transcripts"], mode);
      const request = work(transaction.objectStore("summaries"), transaction.objectStore("transcripts"));
      transaction.oncomplete = () => resolve(request?.result);
      transaction.onerror = transaction.onabort = () => reject(transaction.error ?? new Error("storage failed"));
    });
  }
}
