"""Clients take turns; a full line is said at once; a place is never lost."""

import asyncio

import pytest

from terazi.serve.errors import BusyError
from terazi.serve.fair import FairQueue


async def ask(queue, client, order, hold=0.0):
    async with queue.place(client):
        order.append(client)
        await asyncio.sleep(hold)


def test_clients_take_turns():
    async def run():
        queue, order = FairQueue(1, 100), []
        tasks = [asyncio.create_task(ask(queue, "greedy", order, 0.001)) for _ in range(5)]
        await asyncio.sleep(0)
        tasks += [asyncio.create_task(ask(queue, name, order, 0.001)) for name in ("a", "b", "a")]
        await asyncio.gather(*tasks)
        return queue, order

    queue, order = asyncio.run(run())
    assert order == ["greedy", "greedy", "a", "b", "greedy", "a", "greedy", "greedy"]
    assert (queue.active, queue.waiting) == (0, 0)


def test_no_more_than_the_places_at_a_time():
    async def run():
        queue, now, most = FairQueue(3, 100), 0, 0

        async def one(client):
            nonlocal now, most
            async with queue.place(client):
                now += 1
                most = max(most, now)
                await asyncio.sleep(0.001)
                now -= 1

        await asyncio.gather(*(one(str(number % 4)) for number in range(40)))
        return most, queue.active

    assert asyncio.run(run()) == (3, 0)


def test_a_full_line_says_when_to_come_back():
    async def run():
        queue, order = FairQueue(1, 2), []
        tasks = [asyncio.create_task(ask(queue, "a", order, 0.01)) for _ in range(3)]
        await asyncio.sleep(0)
        with pytest.raises(BusyError) as busy:
            await ask(queue, "b", order)
        await asyncio.gather(*tasks)
        await ask(queue, "b", order)
        return busy.value.retry_after, order

    retry, order = asyncio.run(run())
    assert 1 <= retry <= 600
    assert order == ["a", "a", "a", "b"]


def test_who_leaves_the_line_or_fails_frees_the_place():
    async def run():
        queue, order = FairQueue(1, 10), []
        first = asyncio.create_task(ask(queue, "a", order, 0.02))
        await asyncio.sleep(0)
        leaving = asyncio.create_task(ask(queue, "b", order))
        last = asyncio.create_task(ask(queue, "c", order))
        await asyncio.sleep(0)
        leaving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await leaving
        await asyncio.gather(first, last)
        with pytest.raises(ZeroDivisionError):
            async with queue.place("d"):
                raise ZeroDivisionError
        return queue, order

    queue, order = asyncio.run(run())
    assert order == ["a", "c"]
    assert (queue.active, queue.waiting) == (0, 0)


def test_a_place_given_to_someone_who_just_left_goes_on():
    """The turn comes in the same moment as the cancellation."""

    async def run():
        queue, order = FairQueue(1, 10), []
        async with queue.place("a"):
            leaving = asyncio.create_task(ask(queue, "b", order))
            last = asyncio.create_task(ask(queue, "c", order))
            await asyncio.sleep(0)
        leaving.cancel()  # its turn was set by the block's end just now
        with pytest.raises(asyncio.CancelledError):
            await leaving
        await asyncio.wait_for(last, 1)
        return queue, order

    queue, order = asyncio.run(run())
    assert order == ["c"]
    assert (queue.active, queue.waiting) == (0, 0)
