// Asks one question through the AI SDK, as coding agents do, and prints what it made of the answer.
//
//   node ask.mjs MODULES < question.json > answer.json
//
// MODULES is the folder whose node_modules holds the SDK. The question: {url, key, model, prompt,
// steps}; the answer: {kinds, reasoning, text, calls, finish, usage, error}.

import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";
import { readFileSync } from "node:fs";

const require = createRequire(`${process.argv[2]}/package.json`);
const load = (name) => import(pathToFileURL(require.resolve(name)).href);
const { streamText, tool, jsonSchema, stepCountIs } = await load("ai");
const { createOpenAICompatible } = await load("@ai-sdk/openai-compatible");

const asked = JSON.parse(readFileSync(0, "utf8"));
const provider = createOpenAICompatible({
  name: "unglitched",
  baseURL: `${asked.url}/v1`,
  apiKey: asked.key,
  includeUsage: true,
});
const write = tool({
  description: "Write a file.",
  inputSchema: jsonSchema({
    type: "object",
    properties: { path: { type: "string" }, text: { type: "string" } },
    required: ["path", "text"],
  }),
  execute: async ({ path }) => `wrote ${path}`,
});

const answer = { kinds: [], reasoning: "", text: "", calls: [], finish: "", usage: null, error: "" };
const seen = {
  "reasoning-delta": (part) => (answer.reasoning += part.text),
  "text-delta": (part) => (answer.text += part.text),
  "tool-call": (part) => answer.calls.push([part.toolName, part.input]),
  error: (part) => (answer.error = String(part.error)),
  finish: (part) => {
    answer.finish = part.finishReason;
    answer.usage = part.totalUsage;
  },
};
const result = streamText({
  model: provider(asked.model),
  prompt: asked.prompt,
  tools: { write },
  stopWhen: stepCountIs(asked.steps),
  maxRetries: asked.retries,
  onError: () => {},
});
try {
  for await (const part of result.fullStream) {
    answer.kinds.push(part.type);
    seen[part.type]?.(part);
  }
} catch (error) {
  answer.error = String(error);
}
process.stdout.write(JSON.stringify(answer));
