// @ts-check
/** The engine's last lines. They are text, whatever they hold. */

import { byId, make, write } from "./dom.js";

const MOST = 500;
const place = byId("log", HTMLElement);
const button = byId("log-follow", HTMLButtonElement);
const aside = byId("log-aside", HTMLElement);

/** @typedef {{number: number, text: string}} Line */

let newest = 0;
let follows = true;
/** @type {Line[]} */
let held = [];

/** The number of the newest line here. */
export const newestLine = () => newest;

/** @param {Line[]} lines those that are here already are left out */
export function takeLines(lines) {
  const fresh = lines.filter((line) => line.number > newest);
  if (!fresh.length) return;
  newest = Math.max(...fresh.map((line) => line.number));
  held = [...held, ...fresh].slice(-MOST);
  if (follows) print();
  else say();
}

/** Begin anew: the appliance has, or somebody else looks. */
export function forgetLines() {
  newest = 0;
  held = [];
  place.replaceChildren();
  say();
}

/** Put what was held on the page, and go to its end. */
function print() {
  place.append(...held.map((line) => make("div", { class: `line ${grade(line.text)}`.trim() }, line.text || " ")));
  held = [];
  while (place.childElementCount > MOST) place.firstElementChild?.remove();
  place.scrollTop = place.scrollHeight;
  say();
}

/** @param {string} line */
function grade(line) {
  if (/\b(ERROR|CRITICAL|Traceback)\b|Error\b/.test(line)) return "bad";
  return /\bWARN(ING)?\b/.test(line) ? "warn" : "";
}

function say() {
  write(button, follows ? "Pause" : "Follow");
  const count = held.length;
  if (!newest) write(aside, "it has said nothing yet");
  else if (follows) write(aside, "redacted; it follows the newest line");
  else write(aside, count ? `paused; ${count} new ${count === 1 ? "line" : "lines"}` : "paused");
}

button.addEventListener("click", () => {
  follows = !follows;
  if (follows) print();
  else say();
});
// Who scrolls up wants to read: the page must not move under the eye.
place.addEventListener("scroll", () => {
  const isAtEnd = place.scrollHeight - place.scrollTop - place.clientHeight < 24;
  if (isAtEnd === follows) return;
  follows = isAtEnd;
  if (follows) print();
  else say();
});
say();
