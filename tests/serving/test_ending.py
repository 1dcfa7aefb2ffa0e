import asyncio

import pytest

from serving.ending import end

pytestmark = pytest.mark.anyio


async def test_a_task_that_survives_its_first_cancellation_is_ended_all_the_same():
    survived = []

    async def stubborn():
        while True:
            try:
                await asyncio.sleep(3_600)
            except asyncio.CancelledError:
                if survived:
                    raise
                survived.append(True)

    task = asyncio.create_task(stubborn())
    await asyncio.sleep(0)
    await end([task])
    assert task.cancelled()
    assert survived


async def test_a_failed_task_is_ended_without_its_error():
    async def failing():
        raise ValueError

    task = asyncio.create_task(failing())
    await asyncio.sleep(0)
    await end([task])
    assert isinstance(task.exception(), ValueError)


async def test_no_task_is_ended_at_once():
    await end([])
