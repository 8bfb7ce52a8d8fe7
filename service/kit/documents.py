"""JSON and YAML from outside, whose cost is known before it is spent.

A few bytes of text can become very many objects: ``[],`` takes three bytes in a file and eighty in memory, and an alias
in YAML stands for a whole list. So what the parsed values would take is estimated from the text first.
"""

from __future__ import annotations

import json
import resource
from collections.abc import Iterable
from typing import Any

_UNLIMITED_BYTES = 16 << 30
_LIST_BYTES, _OBJECT_BYTES, _ITEM_BYTES, _NAME_BYTES, _TEXT_BYTES = 88, 232, 40, 150, 60
"""What CPython takes for a list, a dict, an item with its number, one with its name, and a text, rounded up."""
_MAX_YAML_EVENTS = 50_000
_MAX_PLAIN_CHARS = 4096
"""The longest text without quotes in YAML, which may be a number: some forms of numbers take long to convert."""
_MAX_YAML_DEPTH = 64


class DocumentRefused(ValueError):
    """A document that is not valid, or that would cost too much to parse; the message says which, and what to do."""


class NameRepeated(DocumentRefused):
    """A document with a name twice in one object."""


def memory_budget_bytes() -> int:
    """The memory that one document may take: half of what this process may use."""
    soft, _ = resource.getrlimit(resource.RLIMIT_AS)
    return _UNLIMITED_BYTES if soft == resource.RLIM_INFINITY else soft // 2


def json_cost_bytes(data: bytes) -> int:
    """About the memory that parsing JSON takes, with its text: an upper bound, but for texts that hold punctuation."""
    texts = max(0, data.count(b'"') // 2 - data.count(b":"))
    # a letter takes as many bytes in memory as the widest of its text
    letters = len(data) if data.isascii() else 4 * len(data)
    return (
        len(data)
        + 2 * letters
        + _LIST_BYTES * data.count(b"[")
        + _OBJECT_BYTES * data.count(b"{")
        + _ITEM_BYTES * data.count(b",")
        + _NAME_BYTES * data.count(b":")
        + _TEXT_BYTES * texts
    )


def parse_json(data: bytes | str) -> Any:
    """The value of a JSON text. Raises :class:`DocumentRefused`."""
    if isinstance(data, str):
        data = data.encode("utf-8", "surrogatepass")
    cost, budget = json_cost_bytes(data), memory_budget_bytes()
    if cost > budget:
        of = "" if budget == _UNLIMITED_BYTES else ", half of TWINSET_IMPORT_MEMORY_BYTES"
        raise DocumentRefused(
            f"its {len(data)} bytes of JSON take about {cost >> 20} MB of memory to read; the limit is "
            f"{budget >> 20} MB{of}. Divide it"
        )
    try:
        return json.loads(data, object_pairs_hook=_without_repeats)
    except DocumentRefused:
        raise
    except RecursionError:
        raise DocumentRefused("it is nested too deeply to be read; write it with fewer levels") from None
    except ValueError as error:
        raise DocumentRefused(f"it is not valid JSON ({str(error)[:200]})") from None


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        _refuse_repeats(name for name, _ in pairs)
    return found


def _refuse_repeats(names: Iterable[str]) -> None:
    """Raises :class:`NameRepeated` if an object has a name twice, of which a parser takes the last one silently."""
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise NameRepeated(f"it has {name!r:.60} twice in one object; leave only the right one there")
        seen.add(name)


def parse_yaml(text: str, *, plain: bool = False) -> Any:
    """The value of a YAML text, without aliases of lists and maps; with ``plain``, every scalar is a text.

    Raises :class:`DocumentRefused`.
    """
    import yaml

    # libyaml's, where PyYAML was built with it, is ten times as fast
    safe, base = (getattr(yaml, f"C{name}", getattr(yaml, name)) for name in ("SafeLoader", "BaseLoader"))
    kind = base if plain else safe
    try:
        _check_events(text, kind)
        loader = kind(text)
        try:
            node = loader.get_single_node()
            _check_names(node)
            return None if node is None else loader.construct_document(node)
        finally:
            loader.dispose()
    except RecursionError:
        raise DocumentRefused("it is nested too deeply to be read; write it with fewer levels") from None
    except DocumentRefused:
        raise
    except (yaml.YAMLError, ValueError, TypeError, AttributeError, KeyError, IndexError, OverflowError) as error:
        # PyYAML raises more than it documents, for dates such as 2001-99-99 among others
        raise DocumentRefused(f"it is not valid YAML ({(str(error) or 'no reason').splitlines()[0][:200]})") from None


def _check_names(root: Any) -> None:
    """Raises :class:`NameRepeated` if a map of the YAML node has a name twice."""
    import yaml

    nodes = [root]
    while nodes:
        node = nodes.pop()
        if isinstance(node, yaml.MappingNode):
            _refuse_repeats(key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode))
            nodes += [value for _, value in node.value]
        elif isinstance(node, yaml.SequenceNode):
            nodes += node.value


def _check_events(text: str, loader: Any) -> None:
    """Raises :class:`DocumentRefused` if constructing the text's value could cost more than its length."""
    import yaml

    collections: set[str] = set()
    depth = 0
    for number, event in enumerate(yaml.parse(text, Loader=loader)):
        if number >= _MAX_YAML_EVENTS:
            raise DocumentRefused(f"it has more than {_MAX_YAML_EVENTS} values, marks and names; leave out the rest")
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if event.anchor is not None:
                collections.add(event.anchor)
            if depth > _MAX_YAML_DEPTH:
                raise DocumentRefused(f"it is nested more than {_MAX_YAML_DEPTH} levels deep; write it with fewer")
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        elif isinstance(event, yaml.AliasEvent) and event.anchor in collections:
            raise DocumentRefused(f"it repeats a list or map by the alias *{event.anchor[:40]}; write it out in full")
        elif isinstance(event, yaml.ScalarEvent) and event.implicit[0] and len(event.value) > _MAX_PLAIN_CHARS:
            raise DocumentRefused(
                f"a text without quotes has more than {_MAX_PLAIN_CHARS} characters; put it in quotes"
            )
