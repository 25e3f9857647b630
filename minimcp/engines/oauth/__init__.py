"""An OAuth 2.1 client: it obtains tokens, stores and refreshes them, and signs requests with them.

`OAuth` is `auth=` for the client in `http_client` and for `requests`. It imports nothing of MCP: of MCP are only the
choice of RFCs, and the names of extensions that a client declares when it uses a grant. A server can use parts of it as
well: challenges, metadata of protected resources and of authorization servers, proofs of possession.

The price of doing without it: requests-oauthlib or Authlib would take over about 110 of its 2,200 lines (PKCE, the
token form, client authentication). Discovery, registration, the binding to an issuer, the check of every address,
step-up, DPoP, the enterprise grant and the workload grant would remain.
"""
