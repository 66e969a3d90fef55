// @ts-check
/** What the page knows of the appliance. It is told here, and shown elsewhere. */

import { isNumber, total, unix } from "./format.js";

export const HISTORY = 120; // moments in a sparkline: two minutes

/**
 * @typedef {import("./stream.js").Link} Link
 * @typedef {{out: number | null, in: number | null, ttft: number | null, load: number | null}} Moment
 */

/** The last word on everything. */
export class Model {
  constructor() {
    /** @type {any} */ this.status = null;
    /** @type {any} */ this.figures = null;
    /** @type {any} */ this.budget = null;
    /** @type {any[] | null} */ this.incidents = null;
    /** @type {Link | null} */ this.link = null;
    /** @type {Moment[]} */ this.history = [];
    this.statusAt = 0;
    this.ahead = 0; // seconds by which the appliance's clock is ahead of ours
  }

  /** The appliance's clock, in Unix seconds. */
  now() {
    return Date.now() / 1000 + this.ahead;
  }

  /** @param {any} status */
  takeStatus(status) {
    this.status = status;
    this.statusAt = this.now();
  }

  /** @param {any} figures */
  takeFigures(figures) {
    const at = unix(figures?.at);
    if (at !== null) this.ahead = at - Date.now() / 1000;
    this.figures = figures;
    this.history.push(Model.#moment(figures));
    this.history.splice(0, Math.max(0, this.history.length - HISTORY));
    if (this.budget && isNumber(figures?.memory?.available)) {
      this.budget = { ...this.budget, available_bytes: figures.memory.available };
    }
  }

  /** Take what was told before we looked. @param {any[]} earlier */
  takeHistory(earlier) {
    if (earlier.length) this.history = earlier.map(Model.#moment).slice(-HISTORY);
  }

  /** @param {any} figures @returns {Moment} */
  static #moment(figures) {
    const count = (/** @type {unknown} */ value) => (isNumber(value) ? value : null);
    return {
      out: count(figures?.completion_tokens_per_s),
      in: count(figures?.prompt_tokens_per_s),
      ttft: count(figures?.ttft_s?.p50),
      load: total([count(figures?.running), count(figures?.waiting)]),
    };
  }
}
