// A server made with the official TypeScript SDK 1.x: PREFIX, then `stdio` or `http PORT`.

import { randomUUID } from "node:crypto";
import { createServer } from "node:http";
import { createRequire } from "node:module";
import { join } from "node:path";

const [prefix, door, port] = process.argv.slice(2);
const load = createRequire(join(prefix, "package.json"));
const { McpServer, ResourceTemplate } = load("@modelcontextprotocol/sdk/server/mcp.js");
const { completable } = load("@modelcontextprotocol/sdk/server/completable.js");
const { StdioServerTransport } = load("@modelcontextprotocol/sdk/server/stdio.js");
const { StreamableHTTPServerTransport } = load("@modelcontextprotocol/sdk/server/streamableHttp.js");
const { InMemoryEventStore } = load("@modelcontextprotocol/sdk/examples/shared/inMemoryEventStore.js");
const { z } = load("zod");

const text = (value) => ({ content: [{ type: "text", text: value }] });
const starting = (cities) => (value) => cities.filter((city) => city.startsWith(value ?? ""));
const NIGHTS = { type: "object", properties: { nights: { type: "integer" } }, required: ["nights"] };
const report = async ({ _meta, sendNotification }, progress) => {
  const params = { progressToken: _meta?.progressToken, ...progress };
  if (params.progressToken !== undefined) await sendNotification({ method: "notifications/progress", params });
};
let givenUp;
const gaveUp = new Promise((resolve) => (givenUp = resolve));

function build() {
  const server = new McpServer(
    { name: "peer", version: "1.2.3" },
    { instructions: "Ask for the sum.", capabilities: { logging: {} } },
  );
  server.registerTool(
    "add",
    {
      description: "Add two numbers.",
      inputSchema: { a: z.number().int(), b: z.number().int().default(1) },
      outputSchema: { sum: z.number() },
    },
    ({ a, b }) => ({ ...text(String(a + b)), structuredContent: { sum: a + b } }),
  );
  server.registerTool("fail", { description: "Fail." }, () => {
    throw new Error("out of stock");
  });
  server.registerTool("steps", { inputSchema: { count: z.number() } }, async ({ count }, extra) => {
    for (let progress = 1; progress <= count; progress++) {
      await report(extra, { progress, total: count, message: `step ${progress}` });
      const log = { level: "warning", data: `did ${progress}` };
      await extra.sendNotification({ method: "notifications/message", params: log });
    }
    return text(`${count} steps done`);
  });
  server.registerTool("book", { inputSchema: { city: z.string() } }, async ({ city }) => {
    const form = { mode: "form", message: `How many nights in ${city}?`, requestedSchema: NIGHTS };
    const { action, content } = await server.server.elicitInput(form);
    return text(action === "accept" ? `booked ${content.nights} nights` : `not booked: ${action}`);
  });
  server.registerTool("name_folder", {}, async () => {
    const [folder] = (await server.server.listRoots()).roots;
    const content = { type: "text", text: `Name the folder ${folder.uri}` };
    const params = { messages: [{ role: "user", content }], maxTokens: 20, systemPrompt: "Be brief." };
    const written = await server.server.createMessage(params);
    return text(`${folder.name} is now ${written.content.text} (${written.model})`);
  });
  server.registerTool("wait", {}, async (extra) => {
    const gone = new Promise((resolve) => extra.signal.addEventListener("abort", resolve)).then(givenUp);
    await report(extra, { progress: 1 });
    await gone;
    return text("given up");
  });
  server.registerTool("waited", { outputSchema: { result: z.boolean() } }, async () => {
    const late = new Promise((resolve) => setTimeout(() => resolve(false), 60_000).unref());
    const result = await Promise.race([gaveUp.then(() => true), late]);
    return { ...text(String(result)), structuredContent: { result } };
  });
  server.registerTool("grow", { inputSchema: { name: z.string() } }, ({ name }) => {
    // Registering tells the client.
    server.registerTool(name, { description: "It grew." }, () => text(`I am ${name}`));
    return text(`${name} is there`);
  });
  server.registerTool("big", { inputSchema: { size: z.number() } }, ({ size }) => text("x".repeat(size)));
  server.registerTool("polled", { outputSchema: { result: z.boolean() } }, async (extra) => {
    // Hangs up in the middle of the call, where that can be done, and goes on.
    const result = extra.closeSSEStream !== undefined;
    await report(extra, { progress: 1, total: 2, message: "before" });
    if (result) {
      extra.closeSSEStream();
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
    await report(extra, { progress: 2, total: 2, message: "after" });
    return { ...text(String(result)), structuredContent: { result } };
  });
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
  server.registerPrompt("report", { description: "Ask for a report on a city.", argsSchema: { city } }, ({ city }) => ({
    messages: [{ role: "user", content: { type: "text", text: `Write a report on ${city}.` } }],
  }));
  return server;
}

if (door === "stdio") {
  await build().connect(new StdioServerTransport());
} else {
  const sessions = new Map();
  const http = createServer(async (request, response) => {
    let transport = sessions.get(request.headers["mcp-session-id"]);
    if (!transport) {
      transport = new StreamableHTTPServerTransport({
        sessionIdGenerator: () => randomUUID(),
        eventStore: new InMemoryEventStore(),
        retryInterval: 20,
        onsessioninitialized: (id) => sessions.set(id, transport),
      });
      await build().connect(transport);
    }
    await transport.handleRequest(request, response);
  });
  http.listen(Number(port), "127.0.0.1", () => console.log("listening"));
}
