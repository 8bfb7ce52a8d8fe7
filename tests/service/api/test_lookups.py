"""Looks away from the event loop: taken in their order by one thread, and by others where one hangs."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest

from service.api import lookups as module
from service.api.lookups import Lookups
from tests.waiting import until


def raising(error: BaseException) -> Callable[[], Any]:
    def look() -> Any:
        raise error

    return look


def threads() -> int:
    return sum(thread.name == "lookups" for thread in threading.enumerate())


@pytest.fixture(autouse=True)
def no_thread_of_another_test(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_IDLE_S", 0.05)
    until(lambda: threads() == 0)


def test_each_gets_what_its_look_found_and_one_thread_takes_them_in_their_order() -> None:
    order: list[int] = []
    names: set[int] = set()

    def look(number: int) -> int:
        order.append(number)
        names.add(threading.get_ident())
        return number * number

    async def ask() -> list[int]:
        lookups = Lookups()
        return await asyncio.gather(*(lookups.run(lambda n=n: look(n)) for n in range(500)))

    assert asyncio.run(ask()) == [n * n for n in range(500)]
    assert order == list(range(500))
    assert len(names) == 1
    assert threading.get_ident() not in names


def test_a_look_that_fails_fails_for_its_own_alone() -> None:
    async def ask() -> list[Any]:
        lookups = Lookups()
        looks = [lambda: 1, raising(ValueError("no")), raising(StopIteration()), lambda: 2]
        return await asyncio.gather(*(lookups.run(look) for look in looks), return_exceptions=True)

    first, failed, stopped, last = asyncio.run(ask())
    assert (first, last) == (1, 2)
    assert isinstance(failed, ValueError)
    assert str(failed) == "no"
    assert isinstance(stopped, RuntimeError), "no future takes a StopIteration, and nobody may wait for ever"


def test_a_look_that_hangs_keeps_neither_those_before_it_nor_those_behind() -> None:
    release = threading.Event()

    async def ask() -> None:
        lookups = Lookups(stuck_s=0.01)
        before = asyncio.ensure_future(lookups.run(lambda: "before"))
        hanging = asyncio.ensure_future(lookups.run(release.wait))
        behind = [asyncio.ensure_future(lookups.run(lambda: "behind")) for _ in range(20)]
        assert await asyncio.wait_for(before, 10) == "before"
        assert await asyncio.wait_for(asyncio.gather(*behind), 10) == ["behind"] * 20
        assert not hanging.done()
        assert await asyncio.wait_for(lookups.run(lambda: "later"), 10) == "later"
        release.set()
        assert await asyncio.wait_for(hanging, 10) is True

    try:
        asyncio.run(ask())
    finally:
        release.set()


def test_threads_that_hang_are_so_many_and_no_more_and_all_end() -> None:
    release = threading.Event()

    async def ask() -> int:
        lookups = Lookups(stuck_s=0.005, max_threads=3)
        hanging = [asyncio.ensure_future(lookups.run(release.wait)) for _ in range(6)]
        await asyncio.sleep(0.2)
        most = threads()
        release.set()
        assert await asyncio.wait_for(asyncio.gather(*hanging), 10) == [True] * 6
        return most

    try:
        most = asyncio.run(ask())
    finally:
        release.set()
    assert most == 3
    until(lambda: threads() == 0)


def test_after_all_threads_have_ended_looks_are_taken_again_also_for_another_event_loop() -> None:
    lookups = Lookups()
    for turn in range(3):
        assert asyncio.run(lookups.run(lambda turn=turn: turn)) == turn
        until(lambda: threads() == 0)


def test_two_event_loops_at_once_each_hear_of_their_own() -> None:
    lookups = Lookups()
    together = threading.Barrier(4)
    heard: dict[int, list[int]] = {}

    async def ask(who: int) -> list[int]:
        return [await lookups.run(lambda n=n: who * 1000 + n) for n in range(200)]

    def run(who: int) -> None:
        together.wait()
        heard[who] = asyncio.run(ask(who))

    loops = [threading.Thread(target=run, args=(who,)) for who in range(4)]
    for loop in loops:
        loop.start()
    for loop in loops:
        loop.join(30)
    assert heard == {who: [who * 1000 + n for n in range(200)] for who in range(4)}


def test_who_waits_no_more_keeps_nobody() -> None:
    began, release = threading.Event(), threading.Event()

    async def ask() -> str:
        lookups = Lookups()
        leaving = asyncio.ensure_future(lookups.run(lambda: began.set() or release.wait()))
        staying = asyncio.ensure_future(lookups.run(lambda: "found"))
        await asyncio.to_thread(began.wait)
        leaving.cancel()
        release.set()
        with pytest.raises(asyncio.CancelledError):
            await leaving
        return await asyncio.wait_for(staying, 10)

    assert asyncio.run(ask()) == "found"
