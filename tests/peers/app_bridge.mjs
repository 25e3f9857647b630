// The official bridge of a host: `node app_bridge.mjs NODE_PREFIX`. Lines of JSON come in as {message}, {input}, {result},
// {theme} or {answer}, and go out as {post} for the page, {call} for a tool that it calls, and {said} for what it asks.
import { createInterface } from "node:readline";
import { pathToFileURL } from "node:url";

const file = `${process.argv[2]}/node_modules/@modelcontextprotocol/ext-apps/dist/src/app-bridge.js`;
const { AppBridge } = await import(pathToFileURL(file));
const write = (value) => process.stdout.write(JSON.stringify(value) + "\n");
const transport = { start: async () => {}, close: async () => {}, send: async (message) => write({ post: message }) };
const waiting = [];

const context = { hostContext: { theme: "light" } };
const capabilities = { serverTools: {}, message: { text: {} }, logging: {} };
const bridge = new AppBridge(null, { name: "bridge", version: "1" }, capabilities, context);
bridge.oncalltool = (params) => new Promise((resolve) => { waiting.push(resolve); write({ call: params }); });
bridge.onmessage = async (params) => { write({ said: ["message", params] }); return {}; };
bridge.onsizechange = (params) => write({ said: ["size", params] });
bridge.oninitialized = () => write({ said: ["initialized", null] });
bridge.onerror = (problem) => write({ said: ["problem", String(problem)] });
bridge.onrequestteardown = async () => write({ said: ["torn down", await bridge.teardownResource({})] });
await bridge.connect(transport);
write({ said: ["ready", null] });

for await (const line of createInterface({ input: process.stdin })) {
  const { message, input, result, theme, answer } = JSON.parse(line);
  if (message) transport.onmessage(message);
  else if (input) await bridge.sendToolInput({ arguments: input });
  else if (result) await bridge.sendToolResult(result);
  else if (theme) bridge.setHostContext({ theme });
  else if (answer) waiting.shift()(answer);
}
process.exit(0);
