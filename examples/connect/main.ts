// Calls services behind a dialback agent with the official Connect client, and prints the errors that it receives.

import { ConnectError, Code, createClient } from "@connectrpc/connect";
import type { Interceptor } from "@connectrpc/connect";
import { createConnectTransport } from "@connectrpc/connect-node";
import { json, message, service } from "./dialback.js";

const gateway = process.env["GATEWAY"] ?? "http://127.0.0.1:8080";
const token = process.env["TOKEN"] ?? "";

const HelloService = service("HelloService", { Hello: "unary" });
const Demo = service("Demo", { Count: "server_streaming", Fail: "unary", Sleep: "unary" });

/** The services of one agent: the paths of the gateway are `/v1/agents/AGENT/SERVICE/METHOD`. */
function agent(name: string, bearer = token) {
  const withToken: Interceptor = (next) => (request) => {
    request.header.set("Authorization", `Bearer ${bearer}`);
    return next(request);
  };
  const baseUrl = `${gateway}/v1/agents/${name}`;
  const httpVersion = process.env["HTTP"] === "1.1" ? "1.1" : "2";
  // Messages are JSON; the binary format of the library is Protobuf, which the gateway does not support.
  return createConnectTransport({ baseUrl, httpVersion, useBinaryFormat: false, interceptors: [withToken] });
}

const OUTCOME = "dialback-outcome";
/**
 * States whether the handler ran: in the headers of a response, or at the end of a stream. An error of a stream has both, the end first.
 * A call that the client itself cancelled has none: it may have run.
 */
const outcome = (headers: Headers) => headers.get(OUTCOME)?.split(", ")[0] ?? "unknown, the client gave up";

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

let received = new Headers();
const reply = await hello.hello(message("connect"), { onHeader: (headers) => (received = headers) });
console.log(`Hello: ${JSON.stringify(json(reply))} (${outcome(received)})`);

const counted = demo.count(message({ n: 3, interval_ms: 10 }), { onTrailer: (trailer) => (received = trailer) });
for await (const one of counted) console.log(`Count: ${JSON.stringify(json(one))}`);
console.log(`Count ended (${outcome(received)})`);

await expectFailure("Fail", () => demo.fail(message({ code: "NOT_FOUND", message: "no such shelf" })));
await expectFailure("a stream that fails", async () => {
  for await (const one of demo.count(message("three"))) console.log(json(one));
});
await expectFailure("Sleep", () => demo.sleep(message({ ms: 60_000 }), { timeoutMs: 300 }));
// The same timeout sent only to the node: then the node ends the call and reports its outcome.
await expectFailure("Sleep by the node's clock", () =>
  demo.sleep(message({ ms: 60_000 }), { headers: { "Connect-Timeout-Ms": "300" } }),
);
const absent = createClient(HelloService, agent("absent"));
await expectFailure("an agent that is not there", () => absent.hello(message("connect")));
const unauthenticated = createClient(HelloService, agent("warehouse", "wrong"));
await expectFailure("a wrong token", () => unauthenticated.hello(message("connect")));
