// @ts-check
/** The memory budget as bars: what was planned, what is there now, where the floor is. Pure. */

import { isNumber, text, words } from "./format.js";

/**
 * @typedef {{name: string, bytes: number, tone: string}} Piece
 * @typedef {{name: string, tone: string, plan: number | null, actual: number | null, note: string}} Row
 * @typedef {{total: number, plan: Piece[], now: Piece[], rows: Row[], floorAt: number | null,
 *   free: number | null, missing: number}} Bars
 *   lengths in bytes; floorAt is how much may be in use until the guards act; missing is how much
 *   the plan lacks
 */

const NAMES = {
  kv_cache: "KV cache", cuda_graphs: "CUDA graphs", non_torch: "CUDA context",
  engine_host: "engine processes", os: "system and others", growth: "room to grow",
  kill_floor: "last reserve", left: "left free", huge_pages: "huge pages",
};
const RESERVES = new Set(["growth", "kill_floor"]);
const TONES = ["a", "b", "c", "d", "e", "f"];

/** @param {any} budget @returns {Bars | null} null where there is nothing to draw */
export function bars(budget) {
  const total = budget?.total_bytes;
  if (!isNumber(total) || total <= 0) return null;
  const parts = Array.isArray(budget.parts) ? budget.parts : [];
  let used = 0;
  /** @type {Row[]} */
  const rows = parts.map((/** @type {any} */ part) => {
    const name = text(part.name);
    const tone = toneOf(name) ?? TONES[used++ % TONES.length] ?? "a";
    return {
      name: label(name), tone, note: text(part.note),
      plan: isNumber(part.plan_bytes) ? part.plan_bytes : null,
      actual: isNumber(part.actual_bytes) ? part.actual_bytes : null,
    };
  });
  const plan = rows.map((row) => ({ name: row.name, bytes: row.plan ?? 0, tone: row.tone }));
  const floor = isNumber(budget.floor_bytes) ? budget.floor_bytes : null;
  const left = rows.find((row) => row.tone === "free")?.plan ?? 0;
  return {
    total, rows,
    plan: plan.filter((piece) => piece.bytes > 0),
    now: nowPieces(total, rows, budget.available_bytes),
    floorAt: floor === null ? null : Math.max(0, total - floor),
    free: isNumber(budget.available_bytes) ? budget.available_bytes : null,
    missing: Math.max(0, -left),
  };
}

/** @param {number} total @param {Row[]} rows @param {unknown} available @returns {Piece[]} */
function nowPieces(total, rows, available) {
  if (!isNumber(available)) return [];
  const inUse = Math.max(0, total - available);
  /** @type {Piece[]} */
  const pieces = [];
  let known = 0;
  for (const row of rows) {
    if (row.actual === null || row.actual <= 0 || row.tone === "free" || row.tone === "reserve") continue;
    const bytes = Math.min(row.actual, inUse - known);
    known += bytes;
    if (bytes > 0) pieces.push({ name: row.name, bytes, tone: row.tone });
  }
  if (inUse > known) pieces.push({ name: known ? "other use" : "in use", bytes: inUse - known, tone: "other" });
  pieces.push({ name: "available", bytes: available, tone: "free" });
  return pieces;
}

/** @param {string} name */
function toneOf(name) {
  if (name === "left" || name === "available") return "free";
  if (RESERVES.has(name)) return "reserve";
  return name === "os" ? "other" : null;
}

/** @param {string} name */
const label = (name) => /** @type {Record<string, string>} */ (NAMES)[name] ?? words(name);
