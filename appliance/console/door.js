// @ts-check
/** The log-in: it lies over the page, so that nothing on it is lost when a session ends. */

import { login, Refused } from "./api.js";
import { byId, write } from "./dom.js";

const dialog = byId("login", HTMLDialogElement);
const form = byId("login-form", HTMLFormElement);
const key = byId("login-key", HTMLInputElement);
const send = byId("login-send", HTMLButtonElement);
const why = byId("login-why", HTMLElement);
const trouble = byId("login-trouble", HTMLElement);

let isShut = false;
/** @type {(isOurs: boolean) => void} */
let onOpened = () => {};

/** Call `listener` after each log-in, with whether it was in this tab.
 * @param {(isOurs: boolean) => void} listener */
export function whenOpened(listener) {
  onOpened = listener;
}

/** Ask for the key. @param {string} reason */
export function shut(reason) {
  write(why, reason);
  if (isShut) return;
  isShut = true;
  write(trouble, "");
  if (!dialog.open) dialog.showModal();
  key.focus();
}

/** The session is there: by a log-in in this tab, or in another one. @param {boolean} isOurs */
export function open(isOurs) {
  if (!isShut) return;
  isShut = false;
  key.value = "";
  dialog.close();
  onOpened(isOurs);
}

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  send.disabled = true;
  write(trouble, "");
  try {
    await login(key.value.trim());
    open(true);
  } catch (error) {
    const refused = error instanceof Refused ? error : new Refused(0, String(error));
    write(trouble, [refused.message, refused.hint].filter(Boolean).join(" "));
    key.select();
  } finally {
    send.disabled = false;
  }
});
// Escape does not open a door.
dialog.addEventListener("cancel", (event) => event.preventDefault());
dialog.addEventListener("close", () => {
  if (isShut) dialog.showModal();
});
