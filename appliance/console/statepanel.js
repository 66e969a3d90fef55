// @ts-check
/** The first glance: what the engine is doing, why, how far, and what may be done. */

import { byId, make, rebuild, show, sign, write } from "./dom.js";
import { clock, length, number, text, unix, words } from "./format.js";
import { coming, isDown, nextIn, stateWords } from "./statewords.js";

/** @typedef {import("./model.js").Model} Model */

const panel = byId("state", HTMLElement);
const badge = byId("state-badge", HTMLElement);
const title = byId("state-title", HTMLElement);
const why = byId("state-why", HTMLElement);
const hint = byId("state-hint", HTMLElement);
const spoken = byId("spoken", HTMLElement);

/** @param {Model} model */
export function showState(model) {
  const now = model.now();
  const said = stateWords(model.status);
  const isAway = model.link !== null && !model.link.isOpen;
  const tone = isAway ? "bad" : said.tone;
  const headline = isAway ? "Out of reach" : said.title;
  panel.dataset.tone = tone;
  panel.toggleAttribute("data-down", isDown(model.status));
  rebuild(badge, tone, () => [sign(tone)]);
  write(title, headline);
  write(why, isAway ? awayWords(said.title) : [said.why, following(model, now)].filter(Boolean).join(" "));
  show(why, why.textContent !== "");
  show(hint, said.hint !== "" && !isAway);
  write(byId("state-hint-text", HTMLElement), said.hint);
  // Only a change of state is spoken: figures and progress would never be silent.
  write(spoken, model.status || isAway ? `${headline}.` : "");
  document.title = `${headline} · ${text(model.status?.model) || "Unglitched"}`;
  showComing(isAway ? null : coming(model.status, model.statusAt, now));
  showFacts(model, now);
}

/** @param {Model} model @param {number} now */
function following(model, now) {
  const { next } = stateWords(model.status);
  return next && `${next}${nextIn(model.status, now)}.`;
}

/** @param {string} last */
const awayWords = (last) => `What stands below is what was last known; then it was: ${last.toLowerCase()}.`;

/** @param {import("./statewords.js").Coming | null} start */
function showComing(start) {
  show(byId("coming", HTMLElement), start !== null);
  if (start === null) return;
  const meter = byId("coming-meter", HTMLElement);
  write(byId("coming-phase", HTMLElement), start.phase);
  write(byId("coming-left", HTMLElement), start.left);
  meter.classList.toggle("unknown", start.fraction === null);
  meter.setAttribute("aria-valuetext", [start.phase, start.left].filter(Boolean).join(", "));
  const bar = byId("coming-bar", HTMLElement);
  if (start.fraction === null) {
    meter.removeAttribute("aria-valuenow");
    bar.style.removeProperty("width");
  } else {
    meter.setAttribute("aria-valuenow", String(Math.round(start.fraction * 100)));
    bar.style.width = `${start.fraction * 100}%`;
  }
}

/** @param {Model} model @param {number} now */
function showFacts({ status }, now) {
  const since = unix(status?.since);
  const context = number(status?.max_model_len);
  const spawn = number(status?.spawn);
  /** @type {[string, string | null][]} */
  const facts = [
    ["For", since === null ? null : length(now - since)],
    ["Since", clock(status?.since)],
    ["Engine start", spawn && Number(spawn) > 0 ? `no. ${spawn}` : null],
    ["Context", context && `${context} tokens`],
    ["Safer plans taken", status?.safer_plans ? number(status.safer_plans) : null],
    ["Engine", status?.engine === "attach" ? "somebody else's" : null],
    ["Reason", reasonOf(status)],
    ["Box", text(status?.profile) || null],
    ["Version", text(status?.version) || null],
  ];
  const known = facts.filter(([, value]) => value !== null);
  rebuild(byId("state-facts", HTMLElement), known, () =>
    known.map(([name, value]) => make("div", {}, make("dt", {}, name), make("dd", {}, value))));
  show(byId("state-facts", HTMLElement), known.length > 0);
  write(byId("model", HTMLElement), text(status?.model));
}

/** @param {any} status */
function reasonOf(status) {
  const reason = text(status?.reason);
  return reason && reason !== status.state ? words(reason) : null;
}
