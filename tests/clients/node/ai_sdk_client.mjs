// The AI SDK (`ai`) with each provider package that can be pointed at the gateway.

import assert from "node:assert/strict";
import { describe, test } from "node:test";

import { createAnthropic } from "@ai-sdk/anthropic";
import { createOpenAI } from "@ai-sdk/openai";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { embedMany, generateText, isStepCount, jsonSchema, Output, streamText, tool } from "ai";
import { z } from "zod";

import { image, models, question, token, url, weather } from "./gateway.mjs";

const where = { baseURL: `${url}/v1`, apiKey: token };
const openai = createOpenAI(where);
const compatible = createOpenAICompatible({
  ...where,
  name: "gateway",
  includeUsage: true,
  supportsStructuredOutputs: true,
});
const anthropic = createAnthropic(where);

const providers = {
  "openai responses": (model) => openai.responses(model),
  "openai chat": (model) => openai.chat(model),
  "openai-compatible": (model) => compatible(model),
  anthropic: (model) => anthropic(model),
};
const tools = {
  get_weather: tool({
    description: "The weather",
    inputSchema: jsonSchema(weather),
    execute: async ({ city }) => `sunny in ${city}`,
  }),
};
const Event = z.object({ name: z.string(), participants: z.array(z.string()) });
const quiet = { maxRetries: 0 };

for (const [provider, made] of Object.entries(providers)) {
  for (const name of [...models, "openclaw"]) {
    describe(`${provider}, ${name}`, () => {
      const model = made(name);

      test("text", async () => {
        const done = await generateText({ ...quiet, model, prompt: "Count from 1 to 3." });

        assert.equal(done.text, "1, 2, 3");
        assert.equal(done.finishReason, "stop");
        assert.ok(done.usage.outputTokens > 0);
      });

      test("a stream", async () => {
        const stream = streamText({ ...quiet, model, prompt: "Count from 1 to 3." });
        let text = "";
        for await (const piece of stream.textStream) text += piece;

        assert.equal(text, "1, 2, 3");
        assert.ok((await stream.usage).outputTokens > 0);
      });

      test("a loop of tools", async () => {
        const stopWhen = isStepCount(3);
        const stream = streamText({ ...quiet, model, tools, stopWhen, prompt: question });
        await stream.consumeStream();

        assert.equal(await stream.text, "The tool says: sunny in San Francisco");
        assert.equal((await stream.steps).length, 2);
      });

      test("an image", async () => {
        const content = [
          { type: "text", text: "What do you see?" },
          { type: "file", data: image, mediaType: "image/png" },
        ];
        const done = await generateText({ ...quiet, model, messages: [{ role: "user", content }] });

        assert.equal(done.text, "I was given an image.");
      });

      // An agent's answer cannot be tied to a schema; for Ollama the package uses a tool that must be called.
      test("an object", { skip: name === "openclaw" || (provider === "anthropic" && name.startsWith("ollama")) }, async () => {
        const output = Output.object({ schema: Event });
        const done = await generateText({ ...quiet, model, output, prompt: "The event." });

        assert.ok(done.output.participants.length);
      });
    });
  }
}

test("embeddings", async () => {
  for (const model of [openai.embedding("chat/embed"), compatible.embeddingModel("chat/embed")]) {
    const done = await embedMany({ ...quiet, model, values: ["one", "two"] });
    assert.equal(done.embeddings.length, 2);
  }
});

test("a failure in a stream is reported", async () => {
  const failures = [];
  const stream = streamText({
    ...quiet,
    model: compatible("chat/fault-error-mid-stream"),
    prompt: "hello",
    onError: ({ error }) => failures.push(error),
  });
  await stream.consumeStream({ onError: () => {} });

  assert.equal(failures.length, 1);
});
