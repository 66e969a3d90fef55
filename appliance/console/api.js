// @ts-check
/** The appliance over HTTP: requests with the session's cookie, and errors in one shape. */

const CONTROL = "/appliance/v1";

/** What was refused or failed: a sentence, and what to do about it. */
export class Refused extends Error {
  /** @param {number} status 0: there was no answer @param {string} what @param {string} [hint] */
  constructor(status, what, hint = "") {
    super(what);
    this.status = status;
    this.hint = hint;
  }
}

const MARK = "unglitched-session"; // there was one: without it the appliance need not be asked

let csrf = "";
/** @type {() => void} */
let onExpired = () => {};

/** Call `listener` when the session is over. @param {() => void} listener */
export function whenExpired(listener) {
  onExpired = listener;
}

/** @param {string} path under the control API @returns {Promise<any>} */
export async function get(path) {
  return (await ask(CONTROL + path, { headers: { accept: "application/json" } })).json();
}

/** @param {string} path under the control API @param {unknown} [body] @returns {Promise<any>} */
export async function post(path, body = {}) {
  return (await ask(CONTROL + path, changing(body))).json();
}

/** Ask for a chat. @param {unknown} body @param {AbortSignal} signal @returns {Promise<Response>} */
export function chat(body, signal) {
  return ask("/v1/chat/completions", { ...changing(body), signal });
}

/**
 * Tell whether there is a session; fetch what its changes need.
 * @param {boolean} [isSure] another tab has just told of one, which its mark may not have yet
 * @returns {Promise<boolean>}
 */
export async function resume(isSure = false) {
  if (!isSure && !marked()) return false;
  return opened(await send(`${CONTROL}/login`, {}));
}

/** Exchange the operator key for a session. @param {string} key */
export async function login(key) {
  const response = await send(`${CONTROL}/login`, changing({ key }));
  if (!(await opened(response))) throw new Refused(401, "This is not the operator key.");
}

/** End the session. */
export async function logout() {
  const told = await send(`${CONTROL}/logout`, changing({}));
  if (!told.ok && told.status !== 401) throw await refusal(told);
  csrf = "";
  mark(false);
}

/** Whether a session may be there. */
function marked() {
  try {
    return localStorage.getItem(MARK) !== null;
  } catch {
    return true; // storage is shut: ask
  }
}

/** @param {boolean} isIn */
function mark(isIn) {
  try {
    if (isIn) localStorage.setItem(MARK, "");
    else localStorage.removeItem(MARK);
  } catch {
    // storage is shut
  }
}

/** @param {Response} response @returns {Promise<boolean>} */
async function opened(response) {
  if (response.status === 401 || response.status === 403) {
    mark(false);
    return false;
  }
  if (!response.ok) throw await refusal(response);
  csrf = String((await response.json()).csrf);
  mark(true);
  return true;
}

/** @param {unknown} body @returns {RequestInit} */
function changing(body) {
  return {
    method: "POST",
    headers: { "content-type": "application/json", "x-csrf-token": csrf },
    body: JSON.stringify(body),
  };
}

/** @param {string} url @param {RequestInit} init @returns {Promise<Response>} */
async function ask(url, init) {
  const response = await send(url, init);
  if (response.status === 401) onExpired();
  if (!response.ok) throw await refusal(response);
  return response;
}

/** @param {string} url @param {RequestInit} init @returns {Promise<Response>} */
async function send(url, init) {
  try {
    return await fetch(url, { ...init, credentials: "same-origin", cache: "no-store" });
  } catch (cause) {
    if (cause instanceof DOMException && cause.name === "AbortError") throw cause;
    throw new Refused(0, "The appliance does not answer.", "Is it running? Is this machine on its network?");
  }
}

/** @param {Response} response @returns {Promise<Refused>} */
async function refusal(response) {
  try {
    const { error } = await response.json();
    return new Refused(response.status, String(error.message), String(error.hint ?? ""));
  } catch {
    return new Refused(response.status, `The appliance answered ${response.status}.`);
  }
}
