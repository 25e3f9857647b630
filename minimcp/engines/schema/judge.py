"""Judgement of schemas and values by jsonschema, with each keyword counted.

The module stands on jsonschema, so it is imported on first use. Only `ValueError`, `RecursionError` and `TooMuch` come
out of it: a schema of a stranger can make the library raise anything, a panic of its Rust part among it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any
from urllib.parse import urljoin

import jsonschema
from jsonschema_specifications import REGISTRY  # type: ignore[import-untyped, unused-ignore]
from referencing import Registry
from referencing.exceptions import Unresolvable
from referencing.jsonschema import specification_with

from .dialects import DIALECTS, NotSupported, plain
from .effort import STEPS, Effort, TooMuch, running
from .keywords import OWN, counted, counted_items, first, reference_or_items
from .patterns import compile_pattern
from .sentences import nearest, sentence


class Judge:
    """A schema that its dialect allows; threads may share it.

    :param foreign: whether it comes from another program: then null and empty values count as absent, and patterns
        that are not understood are kept as unknown.
    :raises ValueError: when it is not valid, with a sentence that says where.
    """

    def __init__(self, schema: dict[str, Any], dialect: str, what: str, foreign: bool, effort: Effort) -> None:
        self._what = what
        self._foreign = foreign
        with _bounded(effort):
            self._validator_class, self._meta = load(dialect)
            self._specification = specification_with(dialect)
            root = plain(schema, dialect, what, foreign)
            self._check(root, "")
            resource = self._specification.create_resource(root)
            base = resource.id() or ""
            registry = Registry().with_resource(base, resource).crawl()
            self._kept: dict[Any, Any] = {}
            self._walk(resource, registry.resolver(base), effort)
            self._validator = self._validator_class(root, registry=registry)

    def problems(self, value: Any, effort: Effort) -> list[str]:
        """Return a sentence for each of the first problems of a value.

        :raises NotSupported: when there are none, but not all could be judged.
        """
        effort.kept = self._kept
        with _bounded(effort):
            unsure: list[Any] = []
            found = list(first(self._validator.iter_errors(value), unsure))
            if unsure and not found:
                raise NotSupported("a pattern that Python does not have, or that takes long, is not searched")
            return list(dict.fromkeys(map(sentence, found)))

    def _check(self, part: Any, place: str) -> None:
        for error in map(nearest, self._meta.iter_errors(part)):
            place = "/".join(filter(None, (place, *map(str, error.absolute_path))))[:200]
            reason = sentence(error, "it")
            raise ValueError(f"{self._what} is not valid JSON Schema{place and f' at {place!r}'}: {reason}")

    def _walk(self, resource: Any, resolver: Any, effort: Effort) -> None:
        """Check parts that the dialect's own schema cannot: references, their targets, patterns, nested dialects."""
        waiting, references, seen = [(resource, resolver)], list[Any](), set[int]()
        while waiting or references:
            if not waiting:
                resolver, keyword, reference = references.pop()
                effort.spend(STEPS)
                try:
                    found = resolver.lookup(reference)
                except (Unresolvable, ValueError, LookupError, AttributeError, TypeError):
                    raise NotSupported(
                        f"{self._what}: {keyword} {reference[:100]!r} leads nowhere inside the schema; "
                        "references are not fetched, so put the target under $defs"
                    ) from None
                if id(found.contents) not in seen:
                    self._check(found.contents, reference)
                    waiting.append((self._specification.create_resource(found.contents), found.resolver))
                continue
            resource, resolver = waiting.pop()
            node = resource.contents
            if not isinstance(node, dict) or id(node) in seen:
                continue
            seen.add(id(node))
            effort.spend(1 + len(node))
            if "$schema" in node:
                raise NotSupported(
                    f"{self._what}: $schema belongs at the root only, where it holds for the whole schema"
                )
            resolver = resolver.in_subresource(resource)
            for keyword in ("$ref", "$dynamicRef", "$recursiveRef"):
                if isinstance(node.get(keyword), str):
                    references.append((resolver, keyword, node[keyword]))
            for pattern in (node.get("pattern"), *node.get("patternProperties", ())):
                if isinstance(pattern, str):
                    self._kept[pattern] = self._compiled(pattern, effort)
            waiting.extend((inner, resolver) for inner in resource.subresources())

    def _compiled(self, pattern: str, effort: Effort) -> Any:
        effort.spend(len(pattern))
        try:
            return compile_pattern(pattern)
        except ValueError as error:
            if self._foreign:
                return None
            raise ValueError(f"{self._what} is not valid JSON Schema: {error}") from None


@contextmanager
def _bounded(effort: Effort) -> Iterator[None]:
    """Run a block with an effort.

    :raises ValueError: for whatever the library raises, but `RecursionError` at the end of the stack, and `TooMuch`.
    """
    running.effort = effort
    try:
        yield
    except (TooMuch, RecursionError, ValueError):
        raise
    except Exception as error:
        raise ValueError(f"it is not understood: {type(error).__name__}") from None
    except BaseException as error:
        if type(error).__name__ != "PanicException":  # of Rust, at the end of the stack
            raise
        raise RecursionError from None


@lru_cache
def load(dialect: str) -> tuple[Any, Any]:
    """Return the class of a dialect's validators, with all keywords counted, and the validator of its schemas."""
    base: Any = getattr(jsonschema, DIALECTS[dialect])
    create: Any = jsonschema.validators.create
    made = create(
        base.META_SCHEMA,
        {name: counted(name, OWN.get(name, keyword)) for name, keyword in base.VALIDATORS.items() if name != "format"},
        type_checker=base.TYPE_CHECKER,
        id_of=base.ID_OF,
        applicable_validators=counted_items if dialect.startswith("https:") else reference_or_items,
    )
    schema = _schema_of_schemas(dialect, base.META_SCHEMA)
    with _bounded(Effort()):  # it counts its keywords, which are few
        return made, made(schema, registry=Registry())


def _schema_of_schemas(dialect: str, root: dict[str, Any]) -> Any:
    """Return the schema of a dialect with its vocabularies in one, which takes a fraction of the time."""
    parts = [root, *(REGISTRY.contents(urljoin(dialect, part["$ref"])) for part in root.get("allOf", ()))]
    merged = {keyword: part for keyword, part in root.items() if keyword in ("type", "definitions", "dependencies")}
    for keyword in ("properties", "$defs"):
        merged[keyword] = {name: value for part in parts for name, value in part.get(keyword, {}).items()}
    text = re.sub(r'"\$(dynamicRef|recursiveRef)": "#(meta)?"', '"$ref": "#"', json.dumps(merged))
    return json.loads(re.sub(r'"meta/[a-z-]+#', '"#', text))
