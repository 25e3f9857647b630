"""The command `token`: makes, lists and revokes API keys in a file for `minimcp.auth.Keys`."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

from ..auth import keys


def token(options: Any) -> int:
    """Make a key and show it once, or list or revoke keys.

    :param options: `name`, `role`, `scope`, `days`, `file`, `list` and `revoke`.
    """
    path = Path(options.file)
    try:
        if options.list:
            _show(path)
        elif not options.name:
            raise ValueError("a NAME is needed, or --list")
        elif options.revoke:
            keys.revoke_key(path, options.name)
            print(f"The key {options.name} is revoked.", file=sys.stderr)
        else:
            made = keys.make_key(path, options.name, options.role, options.scope, options.days)
            print(f"The key {options.name}, in {path}; it is shown this once:", file=sys.stderr)
            print(made)
    except (OSError, ValueError) as problem:
        print(f"minimcp: {problem}", file=sys.stderr)
        return 1
    return 0


def _show(path: Path) -> None:
    entries, used = keys.read_file(path), {}
    notes = Path(f"{path}.used")
    if notes.exists():
        used = json.loads(notes.read_text(encoding="utf-8"))
    for name, entry in sorted(entries.items()):
        known = [f"{member} {' '.join(entry[member])}" for member in ("roles", "scopes") if entry.get(member)]
        if entry.get("expires"):
            known.append(f"expires {entry['expires']}")
        if name in used:
            known.append("last used " + time.strftime("%Y-%m-%d %H:%M", time.localtime(used[name])))
        print(name, "; ".join(known), sep="\t")
