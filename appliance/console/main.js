// @ts-check
/** The page: who is logged in, what is asked of the appliance, and what is shown when it tells. */

import { get, logout, Refused, resume, whenExpired } from "./api.js";
import { endChat, showChat } from "./chat.js";
import { showControls } from "./controls.js";
import { open, shut, whenOpened } from "./door.js";
import { byId, show, write } from "./dom.js";
import { length } from "./format.js";
import { showHealth } from "./healthpanel.js";
import { showIncidents } from "./incidents.js";
import { fetchKilo } from "./kilo.js";
import { forgetLines, newestLine, takeLines } from "./log.js";
import { showMemory } from "./memorypanel.js";
import { Model } from "./model.js";
import { showState } from "./statepanel.js";
import { Stream } from "./stream.js";
import { showTiles } from "./tiles.js";
import "./theme.js";

const model = new Model();
const main = byId("main", HTMLElement);
const sessions = new BroadcastChannel("unglitched-session");
const PANELS = [showState, showTiles, showMemory, showHealth, showIncidents, showControls, showChat];

const stream = new Stream({
  event: take,
  link: (link) => {
    const isBack = link.isOpen && model.link !== null && !model.link.isOpen;
    model.link = link;
    if (isBack) {
      forgetLines(); // the appliance may have begun anew, and counts its lines from one
      refresh();
    }
    render();
  },
  seen: refresh,
  check: async () => {
    const isIn = await resume();
    if (!isIn) leave("Your session has ended. Log in again: the page is as you left it.");
    return isIn;
  },
});

/** @param {string} kind @param {any} value */
function take(kind, value) {
  if (kind === "log") {
    takeLines([value]);
    return;
  }
  if (kind === "status") takeStatus(value);
  if (kind === "figures") model.takeFigures(value);
  if (kind === "incident") void fetchIncidents();
  render();
}

/** @param {any} status */
function takeStatus(status) {
  const before = model.status;
  model.takeStatus(status);
  const isNew = before?.state !== status?.state || before?.spawn !== status?.spawn;
  if (isNew && before !== null) {
    void fetchBudget();
    void fetchIncidents();
  }
  if (before?.max_model_len !== status?.max_model_len && before !== null) void fetchKilo();
}

function refresh() {
  void quietly(async () => takeStatus(await get("/status")));
  void quietly(async () => takeLines((await get(`/logs?lines=300&after=${newestLine()}`)).lines ?? []));
  void quietly(async () => model.takeHistory((await get("/figures")).figures ?? []));
  void fetchBudget();
  void fetchIncidents();
  void fetchKilo();
}

const fetchBudget = () => quietly(async () => { model.budget = await get("/budget"); });
const fetchIncidents = () => quietly(async () => { model.incidents = (await get("/incidents")).incidents ?? []; });

/** Ask for something that may be missing: the stream tells when the appliance is away.
 * @param {() => Promise<void>} ask */
async function quietly(ask) {
  try {
    await ask();
  } catch (error) {
    if (!(error instanceof Refused)) throw error;
  }
  render();
}

function render() {
  for (const panel of PANELS) panel(model);
  showLink();
}

function showLink() {
  const { link } = model;
  const isLost = link !== null && !link.isOpen;
  show(byId("away", HTMLElement), isLost);
  show(byId("link", HTMLElement), link !== null);
  byId("link", HTMLElement).classList.toggle("lost", isLost);
  write(byId("link-text", HTMLElement), isLost ? "Away" : "Live");
  if (link === null || !isLost) return;
  write(byId("away-text", HTMLElement), `The appliance does not answer, for ${length((Date.now() - link.since) / 1000)}.`);
  const left = link.nextAt === null ? 0 : (link.nextAt - Date.now()) / 1000;
  write(byId("away-next", HTMLElement), left > 0.5 ? `Next try in ${length(left)}.` : "Trying now.");
}

function enter() {
  show(main, true);
  show(byId("logout", HTMLElement), true);
  stream.start();
}

/** @param {string} reason */
function leave(reason) {
  stream.stop();
  endChat();
  shut(reason);
}

async function begin() {
  try {
    if (await resume()) enter();
    else shut("This console is for the operator of the appliance.");
  } catch {
    shut("The appliance does not answer yet. Log in when it does.");
  }
}

whenOpened((isOurs) => {
  if (isOurs) sessions.postMessage("in"); // the others' sessions are this one from now on
  enter();
});
whenExpired(() => leave("Your session has ended. Log in again: the page is as you left it."));
sessions.onmessage = async (/** @type {MessageEvent<string>} */ { data }) => {
  if (data === "out") leave("You have logged out in another tab.");
  else if (await resume(true).catch(() => false)) open(false);
};
byId("logout", HTMLButtonElement).addEventListener("click", async () => {
  const isOut = await logout().then(() => true, () => false);
  if (isOut) sessions.postMessage("out");
  location.reload(); // nothing of it stays on the screen
});
byId("away-retry", HTMLButtonElement).addEventListener("click", () => stream.retry());
setInterval(() => {
  if (document.visibilityState === "visible" && !main.hidden) render();
}, 1000);
void begin();
