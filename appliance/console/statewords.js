// @ts-check
/** What the page says of the engine's state. Pure. */

import { capital, isNumber, length, text, unix, words } from "./format.js";

/**
 * @typedef {"ok" | "busy" | "warn" | "bad" | "idle"} Tone
 * @typedef {{title: string, tone: Tone, why: string, hint: string, next: string}} StateWords
 */

/** @type {Record<string, [string, Tone, string]>} */
const STATES = {
  ready: ["Ready", "ok", "Requests are served."],
  preparing: ["Preparing", "busy", "Memory is being made ready."],
  starting: ["Starting", "busy", "The engine is loading."],
  draining: ["Draining", "busy", "Nobody more is let in; what runs may end."],
  stopping: ["Stopping", "busy", "The engine is being ended."],
  backoff: ["Waiting to try again", "warn", "The engine ended unasked."],
  failed: ["Failed", "bad", "The engine does not come up by itself."],
  stopped: ["Stopped", "idle", "No engine runs."],
  unreachable: ["No engine", "bad", "The engine does not answer."],
};

/** @type {Record<string, string>} */
const REASONS = {
  not_started: "It was not started yet.",
  stopped_by_operator: "An operator stopped it.",
  idle: "Nobody asked for a while. The next request starts it.",
  loading: "The engine is loading.",
  restarting: "It goes down and comes up again.",
};

/** @type {Record<string, string>} */
const DEGRADED = {
  output_suspect: "its test answer was wrong",
  memory_low: "memory is low",
  state_not_saved: "the state folder cannot be written",
  tokenizer_drift: "its tokenizer reads paths otherwise than expected",
};

/** @param {any} status @returns {StateWords} */
export function stateWords(status) {
  const state = text(status?.state);
  if (!state) return { title: "Not known yet", tone: "idle", why: "", hint: "", next: "" };
  const [title, tone, usual] = STATES[state] ?? [capital(words(state)), "idle", ""];
  const degraded = degradedWords(status);
  const reason = text(status.reason);
  const named = reason && reason !== state ? `${capital(words(reason))}.` : "";
  return {
    title: degraded && state === "ready" ? "Ready, with a warning" : title,
    tone: degraded && tone === "ok" ? "warn" : tone,
    why: capital(degraded) || sentence(status.message) || REASONS[reason] || usual || named,
    hint: capital(text(status.hint)),
    next: nextWords(status),
  };
}

/** @param {any} status */
function degradedWords(status) {
  const codes = Array.isArray(status.degraded) ? status.degraded : [];
  const said = codes.map((/** @type {string} */ code) => DEGRADED[code] ?? words(code)).filter(Boolean);
  return said.length ? `${said.join("; ")}.` : "";
}

/** @param {unknown} what */
function sentence(what) {
  const said = capital(text(what).trim());
  return said && !/[.!?]$/.test(said) ? `${said}.` : said;
}

/** @param {any} status */
function nextWords(status) {
  const next = text(status.next).replace(/^nothing until: appliance (\w+)$/, "Nothing happens until you $1 it");
  return capital(next.replace(/^(?=(starts|restarts|stops|is) )/, "it "));
}

/**
 * When the next thing happens by itself.
 * @param {any} status
 * @param {number} now Unix seconds of the appliance
 */
export function nextIn(status, now) {
  const at = unix(status?.next_at);
  if (at === null) return "";
  return at > now ? ` in ${length(at - now)}` : " any moment now";
}

/** Whether the engine went down unasked: then its incidents come first. @param {any} status */
export const isDown = (status) => ["failed", "backoff", "unreachable"].includes(text(status?.state));

/** The states on their way to ready. */
const COMING = new Set(["preparing", "starting"]);

/**
 * @typedef {{fraction: number | null, phase: string, left: string}} Coming
 * @param {any} status
 * @param {number} asOf Unix seconds when `status` was told
 * @param {number} now the same clock, now
 * @returns {Coming | null} how far a start has come; null when none is under way
 */
export function coming(status, asOf, now) {
  if (!COMING.has(text(status?.state))) return null;
  const share = isNumber(status.progress) ? ` ${Math.round(status.progress * 100)} %` : "";
  const named = text(status.phase).replace(/\s*\d+\s*%$/, "");
  const phase = named ? capital(named) + share : "Making memory ready";
  const since = unix(status.since);
  const expected = status.expected_s;
  if (!isNumber(expected) || since === null) return { fraction: null, phase, left: "" };
  const left = Math.max(0, expected - (now - asOf));
  const gone = Math.max(0, now - since);
  const fraction = Math.min(0.97, gone / Math.max(1, gone + left));
  return { fraction, phase, left: left > 1 ? `about ${length(left)} left` : "any moment now" };
}

/**
 * What may be done in this state, the likeliest first.
 * @param {any} status
 * @returns {string[]}
 */
export function verbs(status) {
  const wanted = text(status?.next).endsWith("appliance reset") ? ["reset"] : ["start", "reset"];
  /** @type {Record<string, string[]>} */
  const byState = {
    ready: ["drain", "restart", "stop"],
    preparing: ["stop"],
    starting: ["restart", "stop"],
    draining: ["start", "restart", "stop"],
    stopping: ["start"],
    backoff: ["start", "reset", "stop"],
    failed: wanted,
    stopped: ["start"],
    unreachable: ["restart"],
  };
  return byState[text(status?.state)] ?? ["start", "stop"];
}
