// @ts-check
/** The caches, the paths that the model changed, and what else was counted. */

import { byId, make, rebuild } from "./dom.js";
import { capital, isNumber, number, percent, size, total, words } from "./format.js";

const place = byId("health", HTMLElement);

/** @param {import("./model.js").Model} model */
export function showHealth({ figures }) {
  const shown = {
    gauges: [
      gauge("KV cache in use", figures?.kv_cache_used, "no engine serves"),
      gauge("Prompt cache hits", figures?.prefix_cache_hit, "no prompt lately"),
    ],
    counts: counts(figures),
  };
  rebuild(place, shown, () => [...shown.gauges.map(drawGauge), drawCounts(shown.counts)]);
}

/** @typedef {{name: string, fraction: number | null, why: string}} Gauge
 * @param {string} name @param {unknown} fraction @param {string} why @returns {Gauge} */
function gauge(name, fraction, why) {
  // a thousandth is all that can be seen: let it not redraw for less
  return { name, why, fraction: isNumber(fraction) ? Math.round(Math.min(1, Math.max(0, fraction)) * 1000) / 1000 : null };
}

/** @param {Gauge} gauge */
function drawGauge({ name, fraction, why }) {
  const shown = percent(fraction);
  const bar = make("span");
  bar.style.width = `${(fraction ?? 0) * 100}%`;
  return make("div", { class: "gauge" },
    make("p", { class: "gauge-words" }, make("span", {}, name),
      shown ? make("b", {}, shown) : make("span", { class: "none" }, `– ${why}`)),
    make("div", { class: "meter", "aria-hidden": "true" }, bar));
}

/** @typedef {{name: string, value: string, isSub: boolean}} Count
 * @param {any} figures @returns {Count[]} */
function counts(figures) {
  if (!figures) return [];
  const boxes = Object.entries(figures.nodes ?? {}).map(([node, isUp]) => (
    { name: `Box: ${node}`, value: isUp ? "runs" : "does not run", isSub: false }));
  const rows = [
    ...boxes,
    ...counted("Paths that the model changed", figures.glitches),
    ...counted("Engine starts", figures.spawns),
    ...counted("Engine ends", figures.exits),
    ...counted("Keep-alives sent", figures.keepalives),
  ];
  const swap = size(figures.memory?.swap_free);
  return swap ? [...rows, { name: "Swap free", value: swap, isSub: false }] : rows;
}

/** A count, and what it is made of. @param {string} name @param {unknown} value @returns {Count[]} */
function counted(name, value) {
  const sum = total(value);
  if (sum === null) return [];
  const isSplit = value !== null && typeof value === "object";
  const kinds = isSplit ? Object.entries(/** @type {object} */ (value)) : [];
  return [
    { name, value: number(sum) ?? "", isSub: false },
    ...kinds.filter(([, count]) => (total(count) ?? 0) > 0).map(([kind, count]) => (
      { name: capital(words(kind)) + outcomes(count), value: number(total(count)) ?? "", isSub: true })),
  ];
}

/** What was done with each: "(2 mended, 1 left)". @param {unknown} count */
function outcomes(count) {
  if (count === null || typeof count !== "object") return "";
  const some = Object.entries(count).filter(([, number]) => number > 0);
  return some.length ? ` (${some.map(([done, many]) => `${number(many)} ${words(done)}`).join(", ")})` : "";
}

/** @param {Count[]} rows */
function drawCounts(rows) {
  if (!rows.length) return null;
  return make("dl", { class: "counts" }, ...rows.flatMap(({ name, value, isSub }) => {
    const kind = isSub ? { class: "sub" } : undefined;
    return [make("dt", kind, name), make("dd", kind, value)];
  }));
}
