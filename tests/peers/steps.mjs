// What both TypeScript peers do with a server, written down as one JSON line per step.
// The command line: the npm prefix that has the packages, the mode, then a URL or else a command that serves stdio.

import { createRequire } from "node:module";
import { join } from "node:path";

const STEP_MS = 20_000;
const [prefix, mode, ...target] = process.argv.slice(2);

export { mode };
export const load = createRequire(join(prefix, "package.json"));
export const url = target[0].startsWith("http") ? new URL(target[0]) : null;
export const command = { command: target[0], args: target.slice(1) };

export function saw(step, found = {}) {
  console.log(JSON.stringify({ step, ...found }));
}

// Accepts the first form with three nights, declines the second.
export function person(asked) {
  return ({ params }) => {
    asked.push({ message: params.message, properties: params.requestedSchema.properties });
    return asked.length === 1 ? { action: "accept", content: { nights: 3 } } : { action: "decline" };
  };
}

export const folder = {
  roots: () => ({ roots: [{ uri: "file:///tmp/a", name: "A" }] }),
  sample: ({ params }) => {
    saw("sampled", { system: params.systemPrompt, limit: params.maxTokens, messages: params.messages });
    return { role: "assistant", content: { type: "text", text: "Attic" }, model: "a model" };
  },
};

// A promise that can be kept from outside, and breaks by itself when nobody keeps it in time.
export function promised() {
  let keep;
  const kept = new Promise((resolve, reject) => {
    const timer = setTimeout(() => reject(new Error("nothing came")), 3 * STEP_MS);
    keep = (value) => (clearTimeout(timer), resolve(value));
  });
  kept.catch(() => {});
  return { kept, keep };
}

export async function pages(fetch, member) {
  const items = [];
  let cursor, count = 0;
  do {
    const page = await fetch({ cursor });
    items.push(...page[member]);
    cursor = page.nextCursor;
    count += 1;
  } while (cursor !== undefined);
  saw(member, { items, pages: count });
  return items;
}

export async function walk(client, call, asked) {
  await pages((params) => client.listTools(params), "tools");
  await pages((params) => client.listResources(params), "resources");
  await pages((params) => client.listResourceTemplates(params), "resourceTemplates");
  await pages((params) => client.listPrompts(params), "prompts");
  saw("add", await call("add", { a: 2, b: 3 }));
  saw("picture", await call("picture", {}));
  saw("fail", await call("fail", {}));
  try {
    saw("unknown", await call("nothing", {}));
  } catch (error) {
    saw("unknown", { code: error.code, message: error.message });
  }
  saw("read", await client.readResource({ uri: "config://app" }));
  saw("template", await client.readResource({ uri: "weather://Oslo/today" }));
  saw("prompt", await client.getPrompt({ name: "report", arguments: { city: "Oslo" } }));
  const prompt = { ref: { type: "ref/prompt", name: "report" }, argument: { name: "city", value: "Ber" } };
  saw("complete prompt", (await client.complete(prompt)).completion);
  const template = {
    ref: { type: "ref/resource", uri: "weather://{city}/today" },
    argument: { name: "city", value: "L" },
  };
  saw("complete template", (await client.complete(template)).completion);

  const reports = [];
  const calls = [];
  const onprogress = ({ progress, total, message }) => {
    reports.push([progress, total, message]);
    calls.push(call("seen", {}));
  };
  const stepped = await call("steps", { count: 3 }, { onprogress });
  await Promise.all(calls);
  saw("progress", { reports, content: stepped.content });

  for (const city of ["Oslo", "Lima"]) {
    const { content, isError = false } = await call("book", { city });
    saw("elicit", { content, isError });
  }
  saw("asked", { questions: asked });
  saw("named", await call("name_folder", {}));
}

export async function grow(client, call, changed) {
  saw("grow", await call("grow", { name: "newcomer" }));
  saw("changed", { via: await changed });
  await pages((params) => client.listTools(params), "tools");
  saw("newcomer", await call("newcomer", {}));
  saw("end");
}

export const options = { timeout: STEP_MS };
