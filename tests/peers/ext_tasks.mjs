// The official client support for tasks against our server, over Streamable HTTP; prints what it saw as JSON lines.
// Usage: node ext_tasks.mjs NPM_PREFIX URL
import path from "node:path";
import { pathToFileURL } from "node:url";

const [prefix, url] = process.argv.slice(2);
const home = path.join(prefix, "node_modules", "@modelcontextprotocol", "ext-tasks", "dist", "client", "index.js");
const { withTasks, resultFromTaskOutcome } = await import(pathToFileURL(home).href);

const saw = (step, found) => console.log(JSON.stringify({ step, ...found }));
const capabilities = { elicitation: { form: {} }, extensions: { "io.modelcontextprotocol/tasks": {} } };
const own = {
  "io.modelcontextprotocol/protocolVersion": "2026-07-28",
  "io.modelcontextprotocol/clientCapabilities": capabilities,
  "io.modelcontextprotocol/clientInfo": { name: "ext-tasks", version: "0" },
};
let id = 0;

// One request over HTTP, as the library's port to a host's own client.
async function dispatch(request, options = {}) {
  const params = { ...request.params, _meta: { ...request.params?._meta, ...own } };
  const name = params.taskId ?? params.name;
  const response = await fetch(url, {
    method: "POST",
    headers: {
      "Content-Type": "application/json",
      Accept: "application/json, text/event-stream",
      "MCP-Protocol-Version": "2026-07-28",
      "Mcp-Method": request.method,
      ...(name === undefined ? {} : { "Mcp-Name": name }),
      ...options.context?.headers,
    },
    body: JSON.stringify({ jsonrpc: "2.0", id: ++id, method: request.method, params }),
    signal: options.signal,
  });
  const text = await response.text();
  const events = text.split("\n").filter((line) => line.startsWith("data: {"));
  const reply = JSON.parse(events.length ? events.at(-1).slice(6) : text);
  return reply.error ? { kind: "error", error: reply.error } : { kind: "result", result: reply.result };
}

const nothing = () => () => {};
const port = {
  endpointId: "minimcp",
  taskCapabilities: { generation: "v2", capabilities: {} },
  dispatch,
  onServerRequest: nothing,
  onNotification: nothing,
  onInvalidated: nothing,
  invalidated: false,
};
const asked = [];
const session = withTasks(port, {
  onInputRequest: async (request) => {
    asked.push(request.params.message);
    return { action: "accept", content: { agree: true } };
  },
});

for (const [name, args] of [
  ["count_primes", { below: 5000 }],
  ["send_letters", { names: ["Ann", "Bo"] }],
  ["report", { year: 2020 }],
  ["report", { year: 2027 }],
]) {
  const execution = await session.callTool(name, args);
  const { outcome } = await execution.settle();
  const result = resultFromTaskOutcome(outcome);
  saw(name, { kind: execution.kind, text: result.content[0].text, asked: asked.splice(0) });
}

const long = await session.callTool("count_primes", { below: 100000000 });
await long.cancel();
const { outcome } = await long.settle();
saw("cancelled", { status: outcome.status });
await session.close();
