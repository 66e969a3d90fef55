// @ts-check
/** The block for Kilo Code, and its copy. */

import { get } from "./api.js";
import { byId, write } from "./dom.js";

const block = byId("kilo", HTMLElement);
const button = byId("kilo-copy", HTMLButtonElement);

/** Fetch the block; its limits follow the context that is served. */
export async function fetchKilo() {
  try {
    write(block, JSON.stringify((await get("/kilo")).config, null, 2));
    button.disabled = false;
  } catch (error) {
    write(block, `Not to be had now: ${error instanceof Error ? error.message : "no answer"}`);
    button.disabled = true;
  }
}

button.addEventListener("click", async () => {
  write(button, (await copied(block.textContent ?? "")) ? "Copied" : "Press Ctrl+C");
  setTimeout(() => write(button, "Copy"), 2000);
});

/** Copy; where the browser does not let us (plain HTTP), select it. @param {string} text */
async function copied(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    getSelection()?.selectAllChildren(block);
    return false;
  }
}
