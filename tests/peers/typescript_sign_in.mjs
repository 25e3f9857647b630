// Signs in to a server with the official TypeScript client, 1.x or 2.x, and calls a tool: FOLDER VERSION URL.
//
// Prints "open URL" for each page that a user has to see, and reads where that led them from standard input.
import { createRequire } from "node:module";
import { createInterface } from "node:readline/promises";

const [folder, version, url] = process.argv.slice(2);
const load = createRequire(`${folder}/node_modules/`);
const sdk =
  version === "2"
    ? load("@modelcontextprotocol/client")
    : {
        ...load("@modelcontextprotocol/sdk/client/index.js"),
        ...load("@modelcontextprotocol/sdk/client/streamableHttp.js"),
        ...load("@modelcontextprotocol/sdk/client/auth.js"),
      };
const input = createInterface({ input: process.stdin })[Symbol.asyncIterator]();
const kept = {};
const provider = {
  redirectUrl: "http://127.0.0.1:7000/callback",
  clientMetadata: {
    client_name: "typescript",
    redirect_uris: ["http://127.0.0.1:7000/callback"],
    grant_types: ["authorization_code", "refresh_token"],
    response_types: ["code"],
    token_endpoint_auth_method: "none",
  },
  clientInformation: () => kept.client,
  saveClientInformation: (client) => void (kept.client = client),
  tokens: () => kept.tokens,
  saveTokens: (tokens) => void (kept.tokens = tokens),
  codeVerifier: () => kept.verifier,
  saveCodeVerifier: (verifier) => void (kept.verifier = verifier),
  redirectToAuthorization: (place) => console.log(`open ${place}`),
};

async function connect() {
  const client = new sdk.Client({ name: "typescript", version: "1" });
  const transport = new sdk.StreamableHTTPClientTransport(new URL(url), { authProvider: provider });
  try {
    await client.connect(transport);
    return client;
  } catch (error) {
    if (!(error instanceof sdk.UnauthorizedError)) throw error;
    const query = new URL((await input.next()).value).searchParams;
    await transport.finishAuth(version === "2" ? query : query.get("code"));
    return await connect();
  }
}

const client = await connect();
const result = await client.callTool({ name: "who", arguments: {} });
console.log(`result ${result.content[0].text}`);
await client.close();
process.exit(0);
