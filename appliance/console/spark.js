// @ts-check
/** A sparkline: the last two minutes of one figure. */

import { svg } from "./dom.js";
import { isNumber } from "./format.js";

const WIDTH = 240;
const HEIGHT = 40;

/**
 * Where the lines run: one path for each stretch of known values.
 * @param {(number | null)[]} values
 * @param {number} moments how many there are room for; the newest is at the right
 * @returns {{line: string, area: string}}
 */
export function paths(values, moments) {
  const top = Math.max(...values.filter(isNumber), 0) || 1;
  const x = (/** @type {number} */ at) => round(WIDTH - ((values.length - 1 - at) * WIDTH) / (moments - 1));
  const y = (/** @type {number} */ value) => round(HEIGHT - 1 - (value / top) * (HEIGHT - 4));
  let line = "";
  let area = "";
  for (let at = 0; at < values.length; at += 1) {
    if (!isNumber(values[at])) continue;
    const from = at;
    let stretch = "";
    for (; at < values.length && isNumber(values[at]); at += 1) {
      stretch += `${at === from ? "M" : "L"}${x(at)} ${y(/** @type {number} */ (values[at]))}`;
    }
    line += stretch;
    area += `${stretch}L${x(at - 1)} ${HEIGHT}L${x(from)} ${HEIGHT}Z`;
  }
  return { line, area };
}

/** @param {number} value */
const round = (value) => Math.round(value * 10) / 10;

/** A sparkline without values yet; what it shows is told in words beside it. */
export function makeSpark() {
  const fill = svg("path", { class: "fill" });
  const stroke = svg("path", { class: "stroke" });
  const base = svg("path", { class: "base", d: `M0 ${HEIGHT}H${WIDTH}` });
  const image = svg("svg", {
    class: "spark", viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", "aria-hidden": "true",
  }, fill, base, stroke);
  return {
    image,
    /** @param {(number | null)[]} values @param {number} moments */
    draw(values, moments) {
      const { line, area } = paths(values, moments);
      stroke.setAttribute("d", line);
      fill.setAttribute("d", area);
    },
  };
}
