"""The command `audit`: verifies an audit log that `minimcp.auth.Chain` wrote."""

from __future__ import annotations

import os
import sys
from typing import Any

from ..auth.chain_verify import Verdict, verify


def audit(options: Any) -> int:
    """Verify a log and say in one line whether it is intact.

    :param options: `file`, `key_env` and `known`.
    """
    try:
        key = None
        if options.key_env is not None:
            key = os.environ.get(options.key_env)
            if not key:
                raise ValueError(f"the environment variable {options.key_env}, for the key, is not set")
        verdict = verify(options.file, key, options.known)
    except (OSError, ValueError) as problem:
        print(f"minimcp: {problem}", file=sys.stderr)
        return 1
    print(_sentence(verdict))
    return 0 if verdict.intact else 1


def _sentence(verdict: Verdict) -> str:
    if not verdict.intact:
        return f"{verdict.file}, line {verdict.line}: {verdict.reason}"
    if not verdict.records:
        return f"{verdict.file}: empty"
    parts = [f"intact, {verdict.records} records, the last with the hash {verdict.last}"]
    if verdict.first > 1:
        parts.append(f"those before record {verdict.first} are in a file that is not here")
    if verdict.torn:
        parts.append(f"cut off and marked in {verdict.torn} place{'s' if verdict.torn > 1 else ''}")
    return f"{verdict.file}: {'; '.join(parts)}"
