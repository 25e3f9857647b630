"""Names of the protocol that a trace treats apart from what their spelling suggests. Spec: FEAT-038, TRN-145"""

from __future__ import annotations

from ..engines.trace import Names

NAMES = Names(
    headers=frozenset({"mcp-session-id"}),
    public=frozenset({"progresstoken"}),
    schemas=frozenset({"inputSchema", "outputSchema", "requestedSchema"}),
)
