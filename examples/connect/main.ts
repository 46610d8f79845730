// Calls services behind a dialback agent with Connect's own client, and shows how a call that fails looks to it.

import { ConnectError, Code, createClient } from "@connectrpc/connect";
import type { Interceptor } from "@connectrpc/connect";
import { createConnectTransport } from "@connectrpc/connect-node";
import { json, message, service } from "./dialback.js";

const door = process.env["DOOR"] ?? "http://127.0.0.1:8080";
const token = process.env["TOKEN"] ?? "";

const HelloService = service("HelloService", { Hello: "unary" });
const Demo = service("Demo", { Count: "server_streaming", Fail: "unary", Sleep: "unary" });

/** The services of one agent: the paths of the door are `/v1/agents/AGENT/SERVICE/METHOD`. */
function agent(name: string, bearer = token) {
  const withToken: Interceptor = (next) => (request) => {
    request.header.set("Authorization", `Bearer ${bearer}`);
    return next(request);
  };
  const baseUrl = `${door}/v1/agents/${name}`;
  const httpVersion = process.env["HTTP"] === "1.1" ? "1.1" : "2";
  // Messages are JSON; what the library calls binary is Protobuf, which the door does not speak.
  return createConnectTransport({ baseUrl, httpVersion, useBinaryFormat: false, interceptors: [withToken] });
}

const OUTCOME = "dialback-outcome";
/**
 * Whether the handler ran: in the headers of an answer, or at the end of a stream. An error of a stream has both, the end first.
 * A call that its own client gave up has none: it may have run.
 */
const outcome = (said: Headers) => said.get(OUTCOME)?.split(", ")[0] ?? "unknown, the client gave up";

async function expectFailure(what: string, call: () => Promise<unknown>) {
  try {
    await call();
  } catch (caught) {
    const error = ConnectError.from(caught);
    console.log(`${what}: ${Code[error.code]}, "${error.rawMessage}" (${outcome(error.metadata)})`);
    return;
  }
  throw new Error(`${what} did not fail`);
}

const transport = agent("warehouse");
const hello = createClient(HelloService, transport);
const demo = createClient(Demo, transport);

let said = new Headers();
const reply = await hello.hello(message("connect"), { onHeader: (headers) => (said = headers) });
console.log(`Hello: ${JSON.stringify(json(reply))} (${outcome(said)})`);

const counted = demo.count(message({ n: 3, interval_ms: 10 }), { onTrailer: (trailer) => (said = trailer) });
for await (const one of counted) console.log(`Count: ${JSON.stringify(json(one))}`);
console.log(`Count ended (${outcome(said)})`);

await expectFailure("Fail", () => demo.fail(message({ code: "NOT_FOUND", message: "no such shelf" })));
await expectFailure("a stream that fails", async () => {
  for await (const one of demo.count(message("three"))) console.log(json(one));
});
await expectFailure("Sleep", () => demo.sleep(message({ ms: 60_000 }), { timeoutMs: 300 }));
// The same time said to the node alone: then it is the node that gives up, and it says what it knows.
await expectFailure("Sleep by the node's clock", () =>
  demo.sleep(message({ ms: 60_000 }), { headers: { "Connect-Timeout-Ms": "300" } }),
);
const absent = createClient(HelloService, agent("absent"));
await expectFailure("an agent that is not there", () => absent.hello(message("connect")));
const stranger = createClient(HelloService, agent("warehouse", "wrong"));
await expectFailure("a wrong token", () => stranger.hello(message("connect")));
