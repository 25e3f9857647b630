// Drives a server with the official TypeScript client 2.x.

import { command, folder, grow, load, mode, options, person, promised, saw, url, walk } from "./steps.mjs";

const { Client, StreamableHTTPClientTransport } = load("@modelcontextprotocol/client");
const { StdioClientTransport } = load("@modelcontextprotocol/client/stdio");

const asked = [];
const changed = promised();
const modes = { legacy: "legacy", auto: "auto" };
const versionNegotiation = mode === "default" ? undefined : { mode: modes[mode] ?? { pin: mode } };
const client = new Client(
  { name: "typescript 2", version: "1" },
  { capabilities: { elicitation: { form: {} }, roots: {}, sampling: {} }, versionNegotiation },
);
client.setRequestHandler("roots/list", folder.roots);
client.setRequestHandler("sampling/createMessage", folder.sample);
client.setRequestHandler("elicitation/create", person(asked));
client.setNotificationHandler("notifications/tools/list_changed", () =>
  changed.keep(client.getProtocolEra() === "modern" ? "listen stream" : "notification"),
);
client.onerror = (error) => saw("trouble", { text: String(error) });
const door = url === null ? new StdioClientTransport(command) : new StreamableHTTPClientTransport(url);
await client.connect(door, options);
const version = client.getNegotiatedProtocolVersion();
saw("server", { info: client.getServerVersion(), version, instructions: client.getInstructions() });
const call = (name, args, more) => client.callTool({ name, arguments: args }, { ...options, ...more });
await walk(client, call, asked);
let subscription;
if (client.getProtocolEra() === "modern") {
  subscription = await client.listen({ toolsListChanged: true });
  saw("honored", subscription.honoredFilter);
}
await grow(client, call, changed.kept);
await subscription?.close();
if (url !== null && client.getProtocolEra() === "legacy") await door.terminateSession();
await client.close();
