// What a program does with the client library: connect, ask, chat, and hear the answer.
// node library.mjs FOLDER URL TOKEN; prints one JSON object.
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

const [folder, url, token] = process.argv.slice(2);
const require = createRequire(`${folder}/package.json`);
const { GatewayClient } = await import(
  pathToFileURL(require.resolve("@openclaw/gateway-client"))
);

const heard = [];
const connected = Promise.withResolvers();
const answered = Promise.withResolvers();

const client = new GatewayClient({
  url,
  token,
  minProtocol: 4,
  maxProtocol: 4,
  onHelloOk: (hello) => connected.resolve(hello),
  onConnectError: (error) => connected.reject(error),
  onEvent: ({ event, payload, seq }) => {
    heard.push({ event, seq });
    if (event === "chat" && payload.state === "final") answered.resolve(payload);
  },
});

setTimeout(() => {
  console.error("timed out; heard", JSON.stringify(heard));
  process.exit(1);
}, 60_000).unref();

client.start();
const hello = await connected.promise;
const health = await client.request("health", {});
const started = await client.request("chat.send", {
  sessionKey: "main",
  message: "hello from the library",
  idempotencyKey: crypto.randomUUID(),
});
const final = await answered.promise;
const history = await client.request("chat.history", { sessionKey: "main" });
const refused = await client.request("nope.nope", {}).catch((error) => error.message);
client.stop();

console.log(JSON.stringify({ hello, health, started, final, history, refused, heard }));
process.exit(0);
