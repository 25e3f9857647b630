"""The servers under load, one file each, all with the same four tools and the same command line.

``FILE stdio`` speaks on the pipes; ``FILE http PORT`` serves ``http://127.0.0.1:PORT/mcp``. Two options:
``--mode json`` (plain JSON replies, no sessions), ``session`` (legacy sessions) or ``sse`` (streams), and
``--tools N``, which registers N more tools to list. Each file runs alone in its own environment.
"""
