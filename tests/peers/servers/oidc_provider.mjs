// The authorization server `oidc-provider`: FOLDER PORT SETTINGS.
//
// FOLDER is an npm prefix. SETTINGS is JSON: `format`, "jwt" or "opaque", of access tokens; `lifetime` of these in
// seconds; `nonce`, whether DPoP proofs need one; `scopes`, those of resources for which clients may register; `documents`,
// client ID metadata documents by URL, which stand for the web. Each grant and each registration is printed as a line.
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

const [folder, port, text] = process.argv.slice(2);
const settings = JSON.parse(text);
const place = createRequire(`${folder}/node_modules/`).resolve("oidc-provider");
const { Provider } = await import(pathToFileURL(place));
const issuer = `http://127.0.0.1:${port}`;

const provider = new Provider(issuer, {
  clients: [
    {
      client_id: "resource",
      client_secret: "secret of the resource",
      grant_types: [],
      response_types: [],
      redirect_uris: [],
    },
  ],
  scopes: ["openid", "offline_access", ...settings.scopes],
  cookies: { keys: ["only for tests"] },
  pkce: { required: () => true },
  rotateRefreshToken: () => true,
  issueRefreshToken: (ctx, client) => client.grantTypeAllowed("refresh_token"),
  fetch: (url, options) => {
    const document = settings.documents[String(url)];
    if (document === undefined) return Promise.reject(new Error("not found"));
    return Promise.resolve(new Response(JSON.stringify(document), { headers: { "content-type": "application/json" } }));
  },
  features: {
    devInteractions: { enabled: true },
    registration: { enabled: true },
    introspection: { enabled: true, allowedPolicy: (ctx, client) => client.clientId === "resource" },
    dPoP: {
      enabled: true,
      nonceSecret: Buffer.alloc(32, 1),
      requireNonce: () => settings.nonce,
    },
    clientIdMetadataDocument: { enabled: true, ack: "draft-02" },
    resourceIndicators: {
      enabled: true,
      useGrantedResource: () => true,
      getResourceServerInfo: (ctx, indicator) => ({
        scope: "notes:read notes:write",
        audience: indicator,
        accessTokenFormat: settings.format,
        accessTokenTTL: settings.lifetime,
        jwt: { sign: { alg: "RS256" } },
      }),
    },
  },
});

provider.on("grant.success", (ctx) => console.log(`grant ${ctx.oidc.params.grant_type}`));
provider.on("grant.error", (ctx, error) => console.log(`refused ${error.error}`));
provider.on("registration_create.success", (ctx, client) => console.log(`registered ${client.clientId}`));
provider.on("server_error", (ctx, error) => console.log(`failed ${error.stack}`));
provider.listen(Number(port), "127.0.0.1", () => console.log("listening"));
