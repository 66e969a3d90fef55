// @ts-check
/** The memory: the plan above, what is there now below, the floor across both. */

import { byId, make, rebuild, show, write } from "./dom.js";
import { size } from "./format.js";
import { bars } from "./memorybar.js";

/** @typedef {import("./memorybar.js").Piece} Piece @typedef {import("./memorybar.js").Bars} Bars */

const drawing = byId("memory-bars", HTMLElement);
const table = byId("memory-legend", HTMLElement);
const notes = byId("memory-notes", HTMLElement);
const aside = byId("memory-aside", HTMLElement);

/** @param {import("./model.js").Model} model */
export function showMemory({ budget }) {
  const drawn = bars(budget);
  write(aside, drawn === null ? "" : summary(drawn, budget));
  rebuild(drawing, drawn && rounded(drawn), () =>
    [drawn === null ? make("p", { class: "none" }, "No plan yet: it is made with the first start.") : twoBars(drawn)]);
  rebuild(table, drawn && rounded(drawn), () => (drawn === null ? [] : legend(drawn)));
  const told = (drawn?.rows ?? []).filter((row) => row.note);
  rebuild(notes, told.map((row) => [row.name, row.note]), () =>
    told.flatMap((row) => [make("dt", {}, row.name), make("dd", {}, row.note)]));
  show(byId("memory-why", HTMLElement), told.length > 0);
}

/** What people see of it: a change below 16 MiB moves nothing. @param {Bars} drawn */
function rounded(drawn) {
  return JSON.stringify(drawn, (_key, value) => (typeof value === "number" ? Math.round(value / 2 ** 24) : value));
}

/** @param {Bars} drawn @param {any} budget */
function summary({ total, free, missing }, budget) {
  if (missing > 0) return `The plan does not fit: ${size(missing)} are missing`;
  const floor = size(budget.floor_bytes);
  if (free === null) return `${size(total)} in all`;
  return `${size(free)} of ${size(total)} available${floor ? `; the engine is ended below ${floor}` : ""}`;
}

/** @param {Bars} drawn */
function twoBars(drawn) {
  const tracks = make("div", { class: "tracks" }, bar("Planned", drawn.plan, drawn.total));
  const names = make("div", { class: "names", "aria-hidden": "true" }, make("span", {}, "Plan"));
  if (drawn.now.length) {
    tracks.append(bar("Now", drawn.now, drawn.total));
    names.append(make("span", {}, "Now"));
  }
  if (drawn.floorAt !== null) {
    const floor = make("div", { class: "floor" }, make("span", { class: "floor-name" }, "floor"));
    floor.style.left = `${(drawn.floorAt / drawn.total) * 100}%`;
    tracks.append(floor);
  }
  return make("div", { class: "bars" }, names, tracks);
}

/** @param {string} name @param {Piece[]} pieces @param {number} total */
function bar(name, pieces, total) {
  const told = pieces.map((piece) => `${piece.name} ${size(piece.bytes)}`).join(", ");
  const drawn = make("div", { class: "bar", role: "img", "aria-label": `${name}: ${told}` });
  const whole = Math.max(total, pieces.reduce((sum, piece) => sum + piece.bytes, 0));
  for (const piece of pieces) {
    const part = make("span", { class: `part-${piece.tone}`, title: `${piece.name}: ${size(piece.bytes)}` });
    part.style.width = `${(piece.bytes / whole) * 100}%`;
    drawn.append(part);
  }
  return drawn;
}

/** The parts in two columns. @param {Bars} drawn */
function legend({ rows }) {
  const half = Math.ceil(rows.length / 2);
  return [rows.slice(0, half), rows.slice(half)].filter((some) => some.length).map((some) => {
    const hasNow = rows.some((row) => row.actual !== null);
    const head = ["Part", "Plan", ...(hasNow ? ["Now"] : [])];
    return make("table", {},
      make("thead", {}, make("tr", {}, ...head.map((name) => make("th", { scope: "col" }, name)))),
      make("tbody", {}, ...some.map((row) => line(row, hasNow))));
  });
}

/** @param {import("./memorybar.js").Row} row @param {boolean} hasNow */
function line(row, hasNow) {
  const swatch = make("span", { class: `swatch part-${row.tone}`, "aria-hidden": "true" });
  return make("tr", {},
    make("th", { scope: "row" }, swatch, row.name),
    make("td", {}, size(row.plan) ?? "–"),
    hasNow && make("td", row.actual === null ? { class: "none", title: "not measured by itself" } : {}, size(row.actual) ?? "–"));
}
