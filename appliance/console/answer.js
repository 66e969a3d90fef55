// @ts-check
/** A streamed answer as it comes: events out of bytes, words out of events. Pure. */

/** Yields the data of server-sent events. */
export class Events {
  constructor() {
    this.rest = "";
  }

  /** @param {string} text the next piece, cut anywhere @returns {string[]} the data of what is whole */
  take(text) {
    const events = (this.rest + text).replaceAll("\r\n", "\n").split("\n\n");
    this.rest = events.pop() ?? "";
    return events.map((event) => event.split("\n").filter((line) => line.startsWith("data:"))
      .map((line) => line.slice(5).trimStart()).join("\n")).filter((data) => data && data !== "[DONE]");
  }
}

/**
 * @typedef {{content: string, reasoning: string, tokens: number | null, why: string, error: string}} Piece
 * @param {string} data one event's
 * @returns {Piece}
 */
export function piece(data) {
  const none = { content: "", reasoning: "", tokens: null, why: "", error: "" };
  /** @type {any} */
  let chunk;
  try {
    chunk = JSON.parse(data);
  } catch {
    return none;
  }
  if (chunk?.error) return { ...none, error: String(chunk.error.message ?? "it broke off") };
  const choice = chunk?.choices?.[0];
  const delta = choice?.delta ?? {};
  return {
    content: String(delta.content ?? ""),
    reasoning: String(delta.reasoning ?? delta.reasoning_content ?? ""),
    tokens: typeof chunk?.usage?.completion_tokens === "number" ? chunk.usage.completion_tokens : null,
    why: String(choice?.finish_reason ?? ""),
    error: "",
  };
}
