// Drives a server with the official TypeScript SDK 1.x.

import { command, folder, grow, load, mode, options, person, promised, saw, url, walk } from "./steps.mjs";

const { Client } = load("@modelcontextprotocol/sdk/client/index.js");
const types = load("@modelcontextprotocol/sdk/types.js");

function transport() {
  if (url === null) return new (load("@modelcontextprotocol/sdk/client/stdio.js").StdioClientTransport)(command);
  if (mode === "sse") return new (load("@modelcontextprotocol/sdk/client/sse.js").SSEClientTransport)(url);
  return new (load("@modelcontextprotocol/sdk/client/streamableHttp.js").StreamableHTTPClientTransport)(url);
}

const asked = [];
const changed = promised();
const capabilities = { elicitation: {}, roots: {}, sampling: {} };
const client = new Client({ name: "typescript 1", version: "1" }, { capabilities });
client.setRequestHandler(types.ListRootsRequestSchema, folder.roots);
client.setRequestHandler(types.CreateMessageRequestSchema, folder.sample);
client.setRequestHandler(types.ElicitRequestSchema, person(asked));
client.setNotificationHandler(types.ToolListChangedNotificationSchema, () => changed.keep("notification"));
client.onerror = (error) => saw("trouble", { text: String(error) });
const door = transport();
let version = null;
const told = door.setProtocolVersion?.bind(door);
door.setProtocolVersion = (negotiated) => {
  version = negotiated;
  told?.(negotiated);
};
await client.connect(door, options);
saw("server", { info: client.getServerVersion(), version, instructions: client.getInstructions() });
const call = (name, args, more) => client.callTool({ name, arguments: args }, undefined, { ...options, ...more });
await walk(client, call, asked);
await grow(client, call, changed.kept);
client.onerror = undefined; // It reports its own hanging up as an error.
if (door.terminateSession) await door.terminateSession();
await client.close();
