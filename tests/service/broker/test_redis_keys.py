"""The page of Redis keys: every key is in its table, and no two collide whatever ids and tenants are."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from typing import get_args

from service.broker import redis_keys

FUNCTIONS: dict[str, Callable[..., str]] = {
    name: function
    for name, function in inspect.getmembers(redis_keys, inspect.isfunction)
    if function.__module__ == redis_keys.__name__
}


def keys_of(function: Callable[..., str], subject: str) -> list[str]:
    if function is redis_keys.leader:
        return [redis_keys.leader(task) for task in get_args(redis_keys.LeaderTask)]
    names = inspect.signature(function).parameters
    if not names:
        return [function()]
    more: list[object] = [7] if "chunk" in names else ["acme"] if len(names) > 1 else []
    return [function(subject, *more)]


def test_no_two_keys_collide_even_if_a_tenant_is_named_like_a_job_or_a_key() -> None:
    for subject in ("j0123456789abcdefg", "lease", "leases", "run-progress", "chunk-sweeper"):
        keys = [key for function in FUNCTIONS.values() for key in keys_of(function, subject)]
        assert len(keys) == len(set(keys))
        assert all(key.startswith("twinset:") for key in keys)


def test_the_table_has_every_key_with_its_type_and_no_other() -> None:
    listed = re.findall(
        r"^    (twinset:[a-z-]+)(?::\S.*?)? +(?:string|hash|zset|channel) ", redis_keys.__doc__ or "", re.M
    )
    made = [keys_of(function, "x")[0] for function in FUNCTIONS.values()]
    assert sorted(listed) == sorted(":".join(key.split(":")[:2]) for key in made)
