// The official `@anthropic-ai/sdk` package from npm.

import assert from "node:assert/strict";
import { describe, test } from "node:test";

import Anthropic from "@anthropic-ai/sdk";

import { counting, image, models, poorToken, question, said, token, url, weather } from "./gateway.mjs";

const client = new Anthropic({ baseURL: url, apiKey: token, maxRetries: 0 });
const tools = [{ name: "get_weather", description: "The weather", input_schema: weather }];
const limit = { max_tokens: 4000 };

for (const model of models) {
  describe(model, () => {
    test("in one piece", async () => {
      const done = await client.messages.create({ model, ...limit, messages: said("Count from 1 to 3.") });

      assert.equal(done.content[0].text, "1, 2, 3");
      assert.equal(done.stop_reason, "end_turn");
      assert.equal(done.usage.output_tokens, 3);
    });

    test("the stream helper", async () => {
      const stream = client.messages.stream({ model, ...limit, messages: said("Count from 1 to 3.") });

      assert.equal(await stream.finalText(), "1, 2, 3");
    });

    test("a tool loop with thinking", async () => {
      const more = { model, ...limit, tools, thinking: { type: "enabled", budget_tokens: 1024 } };
      const first = await client.messages.stream({ ...more, messages: said(question) }).finalMessage();
      const call = first.content.at(-1);
      assert.equal(first.content[0].type, "thinking");
      assert.deepEqual(call.input, { city: "San Francisco" });
      const result = { type: "tool_result", tool_use_id: call.id, content: "sunny" };
      const turn = { role: "assistant", content: first.content };
      const second = await client.messages.create({
        ...more,
        messages: [...said(question), turn, ...said([result])],
      });

      assert.equal(second.content.at(-1).text, "The tool says: sunny");
    });

    test("an image", async () => {
      const source = { type: "base64", media_type: "image/png", data: image };
      const parts = [{ type: "image", source }, { type: "text", text: "What do you see?" }];
      const done = await client.messages.create({ model, ...limit, messages: said(parts) });

      assert.equal(done.content[0].text, "I was given an image.");
    });

    test("counted tokens", async () => {
      const counted = await client.messages.countTokens({ model, messages: said("one two three") });

      assert.ok(counted.input_tokens >= 3);
    });
  });
}

test("models", async () => {
  const ids = [];
  for await (const model of client.models.list()) ids.push(model.id);

  assert.ok(ids.includes("openclaw"));
});

test("failures have their classes", async () => {
  const asked = { model: "nobody/knows", ...limit, messages: said("hello") };
  await assert.rejects(
    client.messages.create(asked),
    (error) => error instanceof Anthropic.NotFoundError && error.error.error.type === "not_found_error",
  );
  const wrong = new Anthropic({ baseURL: url, apiKey: "wrong", maxRetries: 0 });
  await assert.rejects(wrong.messages.create(asked), Anthropic.AuthenticationError);
});

test("what the month has no budget for is asked once", async () => {
  const fetch = counting();
  const poor = new Anthropic({ baseURL: url, apiKey: poorToken, fetch });

  await assert.rejects(
    poor.messages.create({ model: "chat/assistant", ...limit, messages: said("hello") }),
    Anthropic.APIError,
  );
  assert.equal(fetch.asked, 1);
});

test("an agent", async () => {
  const done = await client.messages.create({ model: "openclaw", ...limit, messages: said("Count from 1 to 3.") });

  assert.equal(done.content[0].text, "1, 2, 3");
});
