// @ts-check
/** The four figures that move: writing, reading, first token, requests. */

import { byId, make, write, writeOr } from "./dom.js";
import { isNumber, number, rate, wait } from "./format.js";
import { HISTORY } from "./model.js";
import { makeSpark } from "./spark.js";

/** @typedef {import("./model.js").Model} Model @typedef {import("./model.js").Moment} Moment */

const UNKNOWN = "not known while no engine serves";

/** @param {string} id @param {string} unit */
function tile(id, unit) {
  const value = make("b");
  const suffix = make("span", {}, unit);
  const aside = make("p", { class: "aside" });
  const spark = makeSpark();
  byId(id, HTMLElement).append(make("p", { class: "figure" }, value, suffix), aside, spark.image);
  return { value, suffix, aside, spark };
}

const writing = tile("tile-out", "tokens/s");
const reading = tile("tile-in", "tokens/s");
const first = tile("tile-ttft", "median");
const load = tile("tile-load", "");

/** @param {Model} model */
export function showTiles({ figures, status, history }) {
  const values = (/** @type {keyof Moment} */ name) => history.map((moment) => moment[name]);
  writeOr(writing.value, rate(figures?.completion_tokens_per_s), UNKNOWN);
  write(writing.aside, peak(values("out")));
  writeOr(reading.value, rate(figures?.prompt_tokens_per_s), UNKNOWN);
  write(reading.aside, peak(values("in")));

  const p50 = wait(figures?.ttft_s?.p50);
  const p90 = wait(figures?.ttft_s?.p90);
  writeOr(first.value, p50, "no request was answered lately");
  write(first.suffix, p50 === null ? "" : "median");
  write(first.aside, p90 === null ? "Nobody asked lately" : `9 of 10 within ${p90}`);

  const requests = status?.requests;
  const running = figures?.running ?? requests?.running;
  const places = figures?.places ?? requests?.places;
  const waiting = figures?.waiting ?? requests?.waiting;
  writeOr(load.value, number(running), UNKNOWN);
  write(load.suffix, isNumber(places) ? `of ${number(places)} places` : "running");
  write(load.aside, queue(waiting));

  writing.spark.draw(values("out"), HISTORY);
  reading.spark.draw(values("in"), HISTORY);
  first.spark.draw(values("ttft"), HISTORY);
  load.spark.draw(values("load"), HISTORY);
}

/** @param {(number | null)[]} values */
function peak(values) {
  const top = Math.max(...values.filter(isNumber), 0);
  return top > 0 ? `Peak ${rate(top)} in two minutes` : "Nothing for two minutes";
}

/** @param {unknown} waiting */
function queue(waiting) {
  if (!isNumber(waiting)) return "";
  return waiting === 0 ? "Nobody waits" : `${number(waiting)} waiting`;
}
