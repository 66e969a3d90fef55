// @ts-check
/** Light or dark: as the system has it, until somebody chooses. */

import { byId, sign } from "./dom.js";

const KEY = "unglitched-theme";
const button = byId("theme", HTMLButtonElement);
const system = matchMedia("(prefers-color-scheme: dark)");

/** @returns {string | null} what was chosen; storage may be shut */
function chosen() {
  try {
    return localStorage.getItem(KEY);
  } catch {
    return null;
  }
}

/** @param {string} theme */
function choose(theme) {
  try {
    // the system's own choice is not kept: the page follows it again
    if (theme === (system.matches ? "dark" : "light")) localStorage.removeItem(KEY);
    else localStorage.setItem(KEY, theme);
  } catch {
    // it then holds until the page is left
  }
  apply(theme);
}

/** @param {string} theme */
function apply(theme) {
  const other = theme === "dark" ? "light" : "dark";
  document.documentElement.dataset.theme = theme;
  button.replaceChildren(sign(other));
  button.setAttribute("aria-label", `Show it ${other}`);
  button.title = `Show it ${other}`;
}

const follow = () => apply(chosen() ?? (system.matches ? "dark" : "light"));
button.addEventListener("click", () => choose(document.documentElement.dataset.theme === "dark" ? "light" : "dark"));
system.addEventListener("change", follow);
addEventListener("storage", follow);
follow();
