// @ts-check
/** Values as people read them. Pure. Whatever is no finite number is "missing": null comes back. */

const GIB = 1024 ** 3;
const MIB = 1024 ** 2;
const KIB = 1024;

/** @param {unknown} value @returns {value is number} */
export const isNumber = (value) => typeof value === "number" && Number.isFinite(value);

/** @param {unknown} value @returns {string} the text, "" for what is none */
export const text = (value) => (typeof value === "string" ? value : "");

/** @param {unknown} value @param {number} [digits] @returns {string | null} */
export function number(value, digits = 0) {
  if (!isNumber(value)) return null;
  return value.toLocaleString("en", { minimumFractionDigits: digits, maximumFractionDigits: digits });
}

/** A rate: small ones with a digit behind the point. @param {unknown} value */
export function rate(value) {
  if (!isNumber(value)) return null;
  return value > 0 && value < 10 ? number(value, 1) : number(value);
}

/** @param {unknown} bytes @returns {string | null} GiB, or less where that would be 0.0 */
export function size(bytes) {
  if (!isNumber(bytes)) return null;
  const weight = Math.abs(bytes);
  if (weight >= GIB * 0.05) return `${number(bytes / GIB, weight >= 100 * GIB ? 0 : 1)} GiB`;
  if (weight >= MIB) return `${number(bytes / MIB)} MiB`;
  if (weight >= KIB) return `${number(bytes / KIB)} KiB`;
  return bytes === 0 ? "0 GiB" : `${number(bytes)} B`;
}

/** @param {unknown} fraction 0 to 1 @returns {string | null} */
export function percent(fraction) {
  if (!isNumber(fraction)) return null;
  const points = fraction * 100;
  return `${points > 0 && points < 10 ? number(points, 1) : number(points)} %`;
}

/** A length. @param {unknown} seconds @returns {string | null} */
export function length(seconds) {
  if (!isNumber(seconds)) return null;
  const whole = Math.max(0, Math.round(seconds));
  if (whole < 100) return `${whole} s`;
  const minutes = Math.round(whole / 60);
  if (minutes < 100) return `${minutes} min`;
  const hours = Math.floor(minutes / 60);
  return hours < 48 ? `${hours} h ${minutes % 60} min` : `${Math.floor(hours / 24)} days`;
}

/** A short wait, such as the time to a first token. @param {unknown} seconds */
export function wait(seconds) {
  if (!isNumber(seconds)) return null;
  if (seconds < 0.995) return `${number(seconds * 1000)} ms`;
  return seconds < 10 ? `${number(seconds, 1)} s` : length(seconds);
}

/** @param {unknown} moment ISO 8601, or Unix seconds @returns {number | null} Unix seconds */
export function unix(moment) {
  if (isNumber(moment)) return moment;
  if (typeof moment !== "string") return null;
  const parsed = Date.parse(moment);
  return Number.isFinite(parsed) ? parsed / 1000 : null;
}

/** The clock time of a moment, with the day where that is not today. @param {unknown} moment */
export function clock(moment) {
  const seconds = unix(moment);
  if (seconds === null) return null;
  const date = new Date(seconds * 1000);
  const time = date.toLocaleTimeString("en-GB");
  const isToday = date.toDateString() === new Date().toDateString();
  return isToday ? time : `${date.toLocaleDateString("en-GB", { day: "numeric", month: "short" })} ${time}`;
}

/** A code as words: "engine_core_died" reads "engine core died". @param {unknown} code */
export const words = (code) => text(code).replaceAll("_", " ");

/** The first letter large. @param {string} sentence */
export const capital = (sentence) => sentence.charAt(0).toUpperCase() + sentence.slice(1);

/** The sum of a number or of an object's numbers. @param {unknown} value @returns {number | null} */
export function total(value) {
  if (isNumber(value)) return value;
  if (value === null || typeof value !== "object") return null;
  const counts = Object.values(value).map(total).filter(isNumber);
  return counts.reduce((sum, count) => sum + count, 0);
}
