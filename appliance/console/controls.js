// @ts-check
/** Start, stop, drain, restart, reset: each says what will happen, and asks first. */

import { post, Refused } from "./api.js";
import { byId, make, rebuild, write } from "./dom.js";
import { capital, isNumber } from "./format.js";
import { verbs } from "./statewords.js";

/** @typedef {import("./model.js").Model} Model */

const group = byId("verbs", HTMLElement);
const dialog = byId("confirm", HTMLDialogElement);
const yes = byId("confirm-yes", HTMLButtonElement);
const no = byId("confirm-no", HTMLButtonElement);
const trouble = byId("confirm-trouble", HTMLElement);

/** @type {Record<string, (running: string) => string>} */
const WHAT = {
  start: () => "The engine is started as planned. Requests that come meanwhile wait for it.",
  stop: (running) => `The engine is ended at once. ${running} Nothing starts it again but you.`,
  drain: (running) => `Nobody more is let in. ${running} Then the engine is stopped, and stays so.`,
  restart: (running) => `Nobody more is let in. ${running} Then the engine goes down and comes up again; who comes meanwhile waits.`,
  reset: () => "The failures so far are forgotten and the engine is started again, as with a first try.",
};

let verb = "";

/** @param {Model} model */
export function showControls(model) {
  const isAway = model.link !== null && !model.link.isOpen;
  const shown = model.status ? verbs(model.status) : [];
  rebuild(group, [shown, isAway], () => shown.map((name, at) => {
    const isFirst = at === 0 && (name === "start" || name === "reset");
    const button = make("button", { type: "button", "data-verb": name, ...(isFirst ? { class: "first" } : {}) }, capital(name));
    button.toggleAttribute("disabled", isAway);
    button.addEventListener("click", () => ask(name, model));
    return button;
  }));
}

/** @param {string} name @param {Model} model */
function ask(name, model) {
  verb = name;
  write(byId("confirm-title", HTMLElement), `${capital(name)} the engine?`);
  write(byId("confirm-what", HTMLElement), WHAT[name]?.(runningWords(name, model)) ?? "");
  write(yes, capital(name));
  yes.classList.toggle("grave", name === "stop");
  yes.disabled = false;
  write(trouble, "");
  dialog.showModal();
  no.focus();
}

/** @param {string} name @param {Model} model */
function runningWords(name, { figures, status }) {
  const running = figures?.running ?? status?.requests?.running;
  if (!isNumber(running)) return name === "stop" ? "What runs breaks off." : "What runs may end.";
  if (running === 0) return "Nothing runs now.";
  const what = running === 1 ? "The request that runs" : `The ${running} requests that run`;
  if (name === "stop") return `${what} ${running === 1 ? "breaks" : "break"} off.`;
  return `${what} may end, within the drain's time.`;
}

yes.addEventListener("click", async () => {
  yes.disabled = true;
  write(trouble, "");
  try {
    await post(`/${verb}`);
    dialog.close();
  } catch (error) {
    const refused = error instanceof Refused ? error : new Refused(0, String(error));
    write(trouble, [refused.message, refused.hint].filter(Boolean).join(" "));
    yes.disabled = false;
  }
});
no.addEventListener("click", () => dialog.close());
