// The official `openai` package from npm.

import assert from "node:assert/strict";
import { describe, test } from "node:test";

import OpenAI from "openai";
import { zodResponseFormat, zodTextFormat } from "openai/helpers/zod";
import { z } from "zod";

import { counting, image, models, poorToken, question, said, token, url, weather } from "./gateway.mjs";

const client = new OpenAI({ baseURL: `${url}/v1`, apiKey: token, maxRetries: 0 });
const Event = z.object({ name: z.string(), participants: z.array(z.string()) });
const chatTools = [{ type: "function", function: { name: "get_weather", parameters: weather, strict: true } }];
const tools = [{ type: "function", name: "get_weather", parameters: weather, strict: true }];

for (const model of models) {
  describe(model, () => {
    test("chat in one piece", async () => {
      const done = await client.chat.completions.create({ model, messages: said("Count from 1 to 3.") });

      assert.equal(done.choices[0].message.content, "1, 2, 3");
      assert.equal(done.usage.completion_tokens, 3);
      assert.ok(done._request_id);
    });

    test("the stream helper of chat", async () => {
      const stream = client.chat.completions.stream({
        model,
        messages: said("Count from 1 to 3."),
        stream_options: { include_usage: true },
      });
      const done = await stream.finalChatCompletion();

      assert.equal(done.choices[0].message.content, "1, 2, 3");
      assert.equal((await stream.totalUsage()).completion_tokens, 3);
    });

    test("tools run by the client", async () => {
      const runner = client.chat.completions.runTools({
        model,
        messages: said(question),
        stream: true,
        tools: [
          {
            type: "function",
            function: {
              name: "get_weather",
              parse: JSON.parse,
              parameters: weather,
              function: ({ city }) => `sunny in ${city}`,
            },
          },
        ],
      });

      assert.equal(await runner.finalContent(), "The tool says: sunny in San Francisco");
    });

    test("structured output", async () => {
      const format = zodResponseFormat(Event, "event");
      const done = await client.chat.completions.parse({ model, messages: said("The event."), response_format: format });

      assert.ok(done.choices[0].message.parsed.participants.length);
    });

    test("an image", async () => {
      const parts = [
        { type: "text", text: "What do you see?" },
        { type: "image_url", image_url: { url: `data:image/png;base64,${image}` } },
      ];
      const done = await client.chat.completions.create({ model, messages: said(parts) });

      assert.equal(done.choices[0].message.content, "I was given an image.");
    });

    test("a response in one piece", async () => {
      const done = await client.responses.create({ model, input: "Count from 1 to 3." });

      assert.equal(done.output_text, "1, 2, 3");
    });

    test("the stream helper of responses", async () => {
      const done = await client.responses.stream({ model, input: "Count from 1 to 3." }).finalResponse();

      assert.equal(done.output_text, "1, 2, 3");
    });

    test("a tool loop of responses", async () => {
      const first = await client.responses.create({ model, input: question, tools });
      const call = first.output.find((item) => item.type === "function_call");
      const output = { type: "function_call_output", call_id: call.call_id, output: "sunny" };
      const second = await client.responses.create({
        model,
        input: [output],
        previous_response_id: first.id,
        tools,
      });

      assert.equal(second.output_text, "The tool says: sunny");
    });

    test("structured output of responses", async () => {
      const done = await client.responses.parse({
        model,
        input: "The event.",
        text: { format: zodTextFormat(Event, "event") },
      });

      assert.ok(done.output_parsed.participants.length);
    });

    test("a response goes on by the id of the last one", async () => {
      const first = await client.responses.create({ model, input: "My name is Alice." });
      const second = await client.responses.create({
        model,
        input: "What is my name?",
        previous_response_id: first.id,
      });

      assert.equal(second.output_text, "The name is Alice.");
    });
  });
}

test("embeddings in base64, as asked for by default", async () => {
  const packed = await client.embeddings.create({ model: "chat/embed", input: ["one", "two"] });
  const plain = await client.embeddings.create({
    model: "chat/embed",
    input: ["one", "two"],
    encoding_format: "float",
  });

  assert.equal(packed.data.length, 2);
  packed.data[1].embedding.forEach((number, at) => {
    assert.ok(Math.abs(number - plain.data[1].embedding[at]) < 1e-6);
  });
});

test("models", async () => {
  const ids = [];
  for await (const model of client.models.list()) ids.push(model.id);

  assert.ok(ids.includes("openclaw"));
  assert.equal((await client.models.retrieve("chat/mock")).id, "chat/mock");
});

test("what the month has no budget for is asked once", async () => {
  const fetch = counting();
  const poor = new OpenAI({ baseURL: `${url}/v1`, apiKey: poorToken, fetch });

  await assert.rejects(
    poor.chat.completions.create({ model: "chat/assistant", messages: said("hello") }),
    (error) => error instanceof OpenAI.RateLimitError && error.code === "insufficient_quota",
  );
  assert.equal(fetch.asked, 1);
});

test("failures have their classes", async () => {
  await assert.rejects(
    client.chat.completions.create({ model: "nobody/knows", messages: said("hello") }),
    (error) => error instanceof OpenAI.NotFoundError && error.param === "model",
  );
  const wrong = new OpenAI({ baseURL: `${url}/v1`, apiKey: "wrong" });
  await assert.rejects(wrong.models.list(), OpenAI.AuthenticationError);
});

test("a broken stream is an error", async () => {
  const stream = await client.chat.completions.create({
    model: "chat/fault-error-mid-stream",
    messages: said("hello"),
    stream: true,
  });

  await assert.rejects(async () => {
    for await (const chunk of stream) assert.equal(chunk.choices[0].finish_reason, null);
  }, OpenAI.APIError);
});

test("an agent", async () => {
  const first = await client.responses.create({ model: "openclaw", input: "My name is Alice." });
  const second = await client.responses
    .stream({ model: "openclaw", input: "What is my name?", previous_response_id: first.id })
    .finalResponse();

  assert.equal(second.output_text, "The name is Alice.");
});
