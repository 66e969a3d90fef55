// @ts-check
/** A tiny chat: one prompt, its answer as it streams, its reasoning folded. Nothing is kept. */

import { Events, piece } from "./answer.js";
import { chat, Refused } from "./api.js";
import { byId, show, write } from "./dom.js";
import { number, rate, text, wait } from "./format.js";

const prompt = byId("chat-prompt", HTMLTextAreaElement);
const form = byId("chat-form", HTMLFormElement);
const send = byId("chat-send", HTMLButtonElement);
const stop = byId("chat-stop", HTMLButtonElement);
const aside = byId("chat-aside", HTMLElement);
const thinking = byId("chat-thinking", HTMLDetailsElement);
const thought = byId("chat-thought", HTMLElement);
const answer = byId("chat-answer", HTMLElement);
const trouble = byId("chat-trouble", HTMLElement);

/** @type {AbortController | null} */
let running = null;
let model = "";

/** @param {import("./model.js").Model} known */
export function showChat({ status }) {
  model = text(status?.model);
  send.disabled = running !== null || !model;
}

/** Break off what runs: nobody is logged in any more. */
export function endChat() {
  running?.abort();
}

async function run() {
  const asked = prompt.value.trim();
  if (!asked || running !== null || !model) return;
  running = new AbortController();
  begin();
  const began = performance.now();
  /** @type {Told} */
  const told = { firstAt: null, chunks: 0, tokens: null, why: "" };
  try {
    const body = { model, messages: [{ role: "user", content: asked }], stream: true, stream_options: { include_usage: true } };
    await read(await chat(body, running.signal), told, began);
    write(aside, summary(told, began));
    if (told.why === "length") complain("It was cut at its largest length.");
  } catch (error) {
    if (error instanceof DOMException && error.name === "AbortError") write(aside, `stopped; ${summary(told, began)}`);
    else failed(error);
  } finally {
    running = null;
    show(stop, false);
    send.disabled = false;
    answer.removeAttribute("aria-busy");
  }
}

/** @typedef {{firstAt: number | null, chunks: number, tokens: number | null, why: string}} Told */

function begin() {
  send.disabled = true;
  show(stop, true);
  show(thinking, false);
  show(answer, false);
  show(trouble, false);
  thinking.open = false;
  thought.replaceChildren();
  answer.replaceChildren();
  answer.setAttribute("aria-busy", "true");
  write(aside, "waiting for the first token");
}

/** @param {Response} response @param {Told} told @param {number} began */
async function read(response, told, began) {
  const events = new Events();
  const pieces = response.body?.pipeThrough(new TextDecoderStream()).getReader();
  for (;;) {
    const { value, done } = (await pieces?.read()) ?? { value: "", done: true };
    if (done) return;
    for (const data of events.take(value ?? "")) take(piece(data), told);
    if (told.firstAt !== null) write(aside, summary(told, began));
  }
}

/** @param {import("./answer.js").Piece} got @param {Told} told */
function take(got, told) {
  if (got.error) throw new Refused(0, got.error);
  if (got.content || got.reasoning) {
    told.firstAt ??= performance.now();
    told.chunks += 1;
  }
  told.tokens = got.tokens ?? told.tokens;
  told.why = got.why || told.why;
  if (got.reasoning) {
    thought.append(got.reasoning);
    show(thinking, true);
    write(byId("chat-thinking-size", HTMLElement), `(${number(thought.textContent?.length)} characters)`);
  }
  if (got.content) {
    answer.append(got.content);
    show(answer, true);
  }
}

/** @param {Told} told @param {number} began */
function summary({ firstAt, chunks, tokens }, began) {
  if (firstAt === null) return "nothing came";
  const seconds = (performance.now() - firstAt) / 1000;
  const count = tokens ?? chunks;
  const speed = seconds > 0.05 && count > 1 ? rate((count - 1) / seconds) : null;
  return [
    `${number(count)} ${tokens === null ? "chunks" : "tokens"}`,
    speed && `${speed} ${tokens === null ? "chunks" : "tokens"}/s`,
    `first after ${wait((firstAt - began) / 1000)}`,
  ].filter(Boolean).join(" · ");
}

/** @param {unknown} error */
function failed(error) {
  write(aside, "");
  if (error instanceof Refused) complain([error.message, error.hint].filter(Boolean).join(" "));
  else complain("The answer broke off: the engine was lost. Ask again.");
}

/** @param {string} what */
function complain(what) {
  write(trouble, what);
  show(trouble, true);
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  void run();
});
prompt.addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  form.requestSubmit();
});
stop.addEventListener("click", () => running?.abort());
