// A server made with the official TypeScript SDK 2.x, which speaks both eras: PREFIX, then `stdio` or `http PORT`.

import { randomUUID } from "node:crypto";
import { createServer } from "node:http";
import { createRequire } from "node:module";
import { join } from "node:path";

const [prefix, door, port] = process.argv.slice(2);
const load = createRequire(join(prefix, "package.json"));
const { McpServer, ResourceTemplate, completable, createMcpHandler, inputRequired, isLegacyRequest } = load(
  "@modelcontextprotocol/server",
);
const { z } = load("zod");

const text = (value) => ({ content: [{ type: "text", text: value }] });
const starting = (cities) => (value) => cities.filter((city) => city.startsWith(value ?? ""));
const NIGHTS = { type: "object", properties: { nights: { type: "integer" } }, required: ["nights"] };
const report = async ({ _meta, notify }, progress) => {
  const params = { progressToken: _meta?.progressToken, ...progress };
  if (params.progressToken !== undefined) await notify({ method: "notifications/progress", params });
};
const grown = [];
let givenUp;
const gaveUp = new Promise((resolve) => (givenUp = resolve));
let changed = (server) => server.sendToolListChanged();

function build() {
  const server = new McpServer(
    { name: "peer", version: "1.2.3" },
    { instructions: "Ask for the sum.", capabilities: { logging: {} } },
  );
  const numbers = z.object({ a: z.number().int(), b: z.number().int().default(1) });
  server.registerTool(
    "add",
    { description: "Add two numbers.", inputSchema: numbers, outputSchema: z.object({ sum: z.number() }) },
    ({ a, b }) => ({ ...text(String(a + b)), structuredContent: { sum: a + b } }),
  );
  server.registerTool("fail", { description: "Fail." }, () => {
    throw new Error("out of stock");
  });
  server.registerTool("steps", { inputSchema: z.object({ count: z.number() }) }, async ({ count }, { mcpReq }) => {
    for (let progress = 1; progress <= count; progress++) {
      await report(mcpReq, { progress, total: count, message: `step ${progress}` });
      await mcpReq.log("warning", `did ${progress}`);
    }
    return text(`${count} steps done`);
  });
  server.registerTool("book", { inputSchema: z.object({ city: z.string() }) }, ({ city }, { mcpReq }) => {
    const answer = mcpReq.inputResponses?.nights;
    if (answer === undefined) {
      const form = { message: `How many nights in ${city}?`, requestedSchema: NIGHTS };
      return inputRequired({ inputRequests: { nights: inputRequired.elicit(form) } });
    }
    const { action, content } = answer;
    return text(action === "accept" ? `booked ${content.nights} nights` : `not booked: ${action}`);
  });
  server.registerTool("name_folder", {}, ({ mcpReq }) => {
    const { folders, name } = mcpReq.inputResponses ?? {};
    if (name !== undefined) return text(`${mcpReq.requestState()} is now ${name.content.text} (${name.model})`);
    if (folders === undefined) return inputRequired({ inputRequests: { folders: inputRequired.listRoots() } });
    const [folder] = folders.roots;
    const content = { type: "text", text: `Name the folder ${folder.uri}` };
    const params = { messages: [{ role: "user", content }], maxTokens: 20, systemPrompt: "Be brief." };
    return inputRequired({ inputRequests: { name: inputRequired.createMessage(params) }, requestState: folder.name });
  });
  server.registerTool("wait", {}, async ({ mcpReq }) => {
    const gone = new Promise((resolve) => mcpReq.signal.addEventListener("abort", resolve)).then(givenUp);
    await report(mcpReq, { progress: 1 });
    await gone;
    return text("given up");
  });
  server.registerTool("waited", { outputSchema: z.object({ result: z.boolean() }) }, async () => {
    const late = new Promise((resolve) => setTimeout(() => resolve(false), 60_000).unref());
    const result = await Promise.race([gaveUp.then(() => true), late]);
    return { ...text(String(result)), structuredContent: { result } };
  });
  const add = (name) => server.registerTool(name, { description: "It grew." }, () => text(`I am ${name}`));
  server.registerTool("grow", { inputSchema: z.object({ name: z.string() }) }, ({ name }) => {
    grown.push(name);
    add(name);
    changed(server);
    return text(`${name} is there`);
  });
  server.registerTool("big", { inputSchema: z.object({ size: z.number() }) }, ({ size }) => text("x".repeat(size)));
  server.registerTool("polled", { outputSchema: z.object({ result: z.boolean() }) }, async ({ mcpReq, http }) => {
    // Hangs up in the middle of the call, where that can be done, and goes on.
    const result = http?.closeSSE !== undefined;
    await report(mcpReq, { progress: 1, total: 2, message: "before" });
    if (result) {
      http.closeSSE();
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
    await report(mcpReq, { progress: 2, total: 2, message: "after" });
    return { ...text(String(result)), structuredContent: { result } };
  });
  grown.forEach(add);
  server.registerResource("config", "config://app", { mimeType: "text/plain" }, () => ({
    contents: [{ uri: "config://app", mimeType: "text/plain", text: "debug = no" }],
  }));
  const template = new ResourceTemplate("weather://{city}/today", {
    list: undefined,
    complete: { city: starting(["Lima", "Oslo"]) },
  });
  server.registerResource("weather", template, { mimeType: "application/json" }, (uri, { city }) => ({
    contents: [{ uri: uri.href, mimeType: "application/json", text: JSON.stringify({ city }) }],
  }));
  const city = completable(z.string(), starting(["Bergen", "Berlin", "Oslo"]));
  server.registerPrompt(
    "report",
    { description: "Ask for a report on a city.", argsSchema: z.object({ city }) },
    ({ city }) => ({ messages: [{ role: "user", content: { type: "text", text: `Write a report on ${city}.` } }] }),
  );
  return server;
}

// Numbers events, over all streams.
function store() {
  const events = [];
  return {
    storeEvent: async (stream, message) => String(events.push([stream, message])),
    replayEventsAfter: async (last, { send }) => {
      const [wanted] = events[last - 1];
      for (const [index, [stream, message]] of [...events.entries()].slice(Number(last))) {
        if (stream === wanted && message.jsonrpc) await send(String(index + 1), message);
      }
      return wanted;
    },
  };
}

if (door === "stdio") {
  load("@modelcontextprotocol/server/stdio").serveStdio(build);
} else {
  const { NodeStreamableHTTPServerTransport, toNodeHandler } = load("@modelcontextprotocol/node");
  const handler = createMcpHandler(build);
  const modern = toNodeHandler(handler);
  const sessions = new Map();
  changed = (server) => (server.isConnected() && server.sendToolListChanged(), handler.notify.toolsChanged());

  async function legacy(request, response) {
    let transport = sessions.get(request.headers["mcp-session-id"]);
    if (!transport) {
      transport = new NodeStreamableHTTPServerTransport({
        sessionIdGenerator: () => randomUUID(),
        eventStore: store(),
        retryInterval: 20,
        onsessioninitialized: (id) => sessions.set(id, transport),
      });
      await build().connect(transport);
    }
    await transport.handleRequest(request, response);
  }
  const http = createServer((request, response) => {
    const old = request.headers["mcp-session-id"] || request.headers["mcp-protocol-version"] !== "2026-07-28";
    (old ? legacy : modern)(request, response);
  });
  http.listen(Number(port), "127.0.0.1", () => console.log("listening"));
}
