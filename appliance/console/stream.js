// @ts-check
/**
 * The live events, one stream for all tabs of a browser.
 *
 * A tab that is seen asks for a lock. Who holds it keeps the one stream open and passes each event
 * on to the others; a tab that is hidden gives the lock, and with it the stream, away. When nobody
 * looks, nobody streams. Where the browser has no locks (plain HTTP to another machine), each
 * tab that is seen has a stream of its own.
 */

const EVENTS = "/appliance/v1/events";
const NAME = "unglitched-events";
const KINDS = ["status", "log", "figures", "incident"];
const SILENCE_MS = 10_000; // figures come once a second
const BACKOFF_MS = [1000, 2000, 4000, 8000, 15_000];

/**
 * @typedef {{isOpen: boolean, since: number, nextAt: number | null}} Link
 *   since when (ms) it is so, and when it is tried again
 * @typedef {{
 *   event: (kind: string, value: any) => void,
 *   link: (link: Link) => void,
 *   seen: () => void,
 *   check: () => Promise<boolean>,
 * }} Reader what to do with an event, with a change of the link, when the tab is seen (again),
 *   and how to ask whether the session still holds
 */

/** One tab's share in the stream. */
export class Stream {
  /** @param {Reader} reader */
  constructor(reader) {
    this.reader = reader;
    this.channel = new BroadcastChannel(NAME);
    this.channel.onmessage = ({ data }) => this.#heard(data);
    this.isWanted = false;
    /** @type {AbortSignal | null} the end of our own stream */
    this.holding = null;
    /** @type {AbortController | null} */
    this.place = null;
    /** @type {Map<string, unknown>} */
    this.last = new Map();
    document.addEventListener("visibilitychange", () => this.#look());
    addEventListener("pagehide", () => this.#leave());
    addEventListener("pageshow", () => this.#look());
  }

  /** Take part. */
  start() {
    this.isWanted = true;
    this.#look();
  }

  /** Take no part: nobody is logged in. */
  stop() {
    this.isWanted = false;
    this.#look();
  }

  /** Do not wait for the next try. */
  retry() {
    this.hurry?.();
    this.channel.postMessage({ hurry: true });
  }

  #look() {
    const isSeen = this.isWanted && document.visibilityState === "visible";
    if (isSeen && this.place === null) this.#join();
    if (!isSeen) this.#leave();
  }

  #join() {
    const place = new AbortController();
    this.place = place;
    this.reader.seen();
    this.channel.postMessage({ hello: true });
    const hold = () => this.#hold(place.signal);
    if (!navigator.locks) {
      void hold();
      return;
    }
    navigator.locks.request(NAME, { signal: place.signal }, hold).catch(() => {
      // left before the lock was ours
    });
  }

  #leave() {
    this.place?.abort();
    this.place = null;
  }

  /** Keep a stream open until told to leave. @param {AbortSignal} signal */
  async #hold(signal) {
    this.holding = signal;
    let failures = 0;
    while (!signal.aborted) {
      const wasOpen = await this.#listen(signal);
      if (signal.aborted || !(await this.reader.check().catch(() => true))) break;
      failures = wasOpen ? 1 : failures + 1;
      const pause = BACKOFF_MS[Math.min(failures, BACKOFF_MS.length) - 1] ?? 1000;
      if (wasOpen || failures === 1) this.lostAt = Date.now();
      this.#tell({ link: { isOpen: false, since: this.lostAt, nextAt: Date.now() + pause } });
      await this.#pause(pause, signal);
    }
    if (this.holding === signal) this.holding = null;
  }

  /** Read one connection to its end. @param {AbortSignal} signal @returns {Promise<boolean>} */
  #listen(signal) {
    return new Promise((resolve) => {
      const source = new EventSource(EVENTS);
      let wasOpen = false;
      /** @type {number | undefined} */
      let alarm;
      const end = () => {
        clearTimeout(alarm);
        source.close();
        resolve(wasOpen);
      };
      const alive = () => {
        clearTimeout(alarm);
        alarm = setTimeout(end, SILENCE_MS);
      };
      alive();
      source.onopen = () => {
        wasOpen = true;
        this.#tell({ link: { isOpen: true, since: Date.now(), nextAt: null } });
      };
      source.onerror = end;
      signal.addEventListener("abort", end, { once: true });
      for (const kind of KINDS) {
        source.addEventListener(kind, ({ data }) => {
          alive();
          this.#tell({ kind, value: JSON.parse(data) });
        });
      }
    });
  }

  /** @param {number} ms @param {AbortSignal} signal @returns {Promise<void>} */
  #pause(ms, signal) {
    return new Promise((resolve) => {
      const timer = setTimeout(resolve, ms);
      this.hurry = () => {
        clearTimeout(timer);
        resolve();
      };
      signal.addEventListener("abort", this.hurry, { once: true });
    });
  }

  /** Tell this tab and the others. @param {any} message */
  #tell(message) {
    if (message.kind !== "log") this.last.set(message.kind ?? "link", message);
    this.#take(message);
    this.channel.postMessage(message);
  }

  /** @param {any} message from another tab */
  #heard(message) {
    if (message.hello && this.holding) this.last.forEach((kept) => this.channel.postMessage(kept));
    if (message.hurry) this.hurry?.();
    if (this.place !== null && this.holding === null) this.#take(message);
  }

  /** @param {any} message */
  #take(message) {
    if (message.link) this.reader.link(message.link);
    if (message.kind) this.reader.event(message.kind, message.value);
  }
}
