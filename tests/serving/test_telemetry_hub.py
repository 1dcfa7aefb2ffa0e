from __future__ import annotations

import asyncio
import json

import pytest

from serving import telemetry
from serving.telemetry import STRIKES, Hub, Kind, Subscription, TooManyClients, message

pytestmark = pytest.mark.anyio


def hub(clients: int = 10, per_subject: int = 10, queue: int = 4) -> Hub:
    return Hub(clients=clients, per_subject=per_subject, queue=queue)


def part(machine_id: str, n: int) -> dict[str, bytes]:
    return {machine_id: json.dumps({"machine_id": machine_id, "n": n}).encode()}


async def taken(subscription: Subscription) -> list[dict[str, object]]:
    """What is there now, and what comes after the end."""
    found = []
    while subscription.waiting or not subscription.is_open:
        got = await subscription.next()
        if got is None:
            break
        found.append(json.loads(got.body))
    return found


async def test_a_client_gets_its_machines_and_kinds_in_order_and_nothing_else():
    h = hub()
    s = h.subscribe("a", ["m-1"], [Kind.READINGS])
    h.publish(Kind.READINGS, part("m-1", 1) | part("m-2", 1), position="1-e")
    h.publish(Kind.READINGS, part("m-2", 2), position="2-e")
    h.publish(Kind.PREDICTIONS, part("m-1", 3))
    h.publish(Kind.READINGS, part("m-1", 4), position="4-e")
    assert await taken(s) == [
        {
            "v": 1,
            "type": "readings",
            "position": f"{n}-e",
            "machines": [{"machine_id": "m-1", "n": n}],
        }
        for n in (1, 4)
    ]
    assert s.position == "4-e"


async def test_alarms_come_to_every_client_of_the_area_whatever_machines_it_watches():
    h = hub()
    north = h.subscribe("a", [], [Kind.ALARMS], lambda site, area: area == "north")
    south = h.subscribe("b", ["m-1"], [Kind.ALARMS], lambda site, area: area == "south")
    deaf = h.subscribe("c", ["m-1"], [Kind.READINGS])
    h.publish_alarms([("m-1", "s", "north", b'{"n":1}'), ("", "", "", b'{"n":2}')])
    assert [m["machines"] for m in await taken(north)] == [[{"n": 1}, {"n": 2}]]
    assert [m["machines"] for m in await taken(south)] == [[{"n": 2}]]
    assert await taken(deaf) == []


async def test_clients_of_the_same_machines_share_one_encoded_message():
    h = hub()
    a, b = h.subscribe("a", ["m"]), h.subscribe("b", ["m"])
    h.publish(Kind.READINGS, part("m", 1))
    assert await a.next() is await b.next()


async def test_a_stalled_client_neither_delays_others_nor_grows():
    h = hub(queue=4)
    stalled, quick = h.subscribe("a", ["m"]), h.subscribe("b", ["m"])
    for n in range(STRIKES * 4):
        h.publish(Kind.READINGS, part("m", n), position=f"{n}-e")
        got = await quick.next()
        assert got is not None
        assert json.loads(got.body)["machines"][0]["n"] == n
        assert stalled.waiting <= 4
    assert stalled.is_open


async def test_a_slow_client_is_told_how_many_it_missed_and_where_to_resume():
    h = hub(queue=2)
    s = h.subscribe("a", ["m"])
    h.publish(Kind.READINGS, part("m", 0), position="0-e")
    await s.next()
    for n in range(1, 4):
        h.publish(Kind.READINGS, part("m", n), position=f"{n}-e")
    told = await s.next()
    assert told is not None
    assert json.loads(told.body) == {"v": 1, "type": "dropped", "messages": 2, "resume_from": "0-e"}
    assert told.position is None
    assert [m["position"] for m in await taken(s)] == ["3-e"]


async def test_a_client_that_never_catches_up_is_closed_with_the_reason():
    h = hub(queue=1)
    s = h.subscribe("a", ["m"])
    for n in range(STRIKES + 2):
        h.publish(Kind.READINGS, part("m", n))
    assert not s.is_open
    assert [m["type"] for m in await taken(s)] == ["dropped", "closed"]
    assert await s.next() is None
    assert len(h) == 0
    assert not h.watched


async def test_a_client_that_catches_up_in_between_is_forgiven():
    h = hub(queue=1)
    s = h.subscribe("a", ["m"])
    for n in range(3 * STRIKES):
        h.publish(Kind.READINGS, part("m", n))
        h.publish(Kind.READINGS, part("m", n))
        while s.waiting:
            await s.next()
        waiting = asyncio.ensure_future(s.next())
        await asyncio.sleep(0)
        h.broadcast(message("heartbeat"))
        got = await waiting
        assert got is not None
        assert got.type == "heartbeat"
    assert s.is_open


async def test_the_bytes_that_wait_are_bounded_too(monkeypatch):
    monkeypatch.setattr(telemetry, "QUEUE_BYTES", 1_000)
    h = hub(queue=1_000)
    s = h.subscribe("a", ["m"])
    for _ in range(3):
        h.publish(Kind.READINGS, {"m": b'"' + b"x" * 600 + b'"'})
        assert s.waiting == 1


async def test_too_many_clients_are_refused_and_a_place_comes_back_at_close():
    h = hub(clients=3, per_subject=2)
    first = h.subscribe("a", ["m"])
    h.subscribe("a", ["m"])
    with pytest.raises(TooManyClients, match="subject"):
        h.subscribe("a", ["m"])
    h.subscribe("b", ["m"])
    with pytest.raises(TooManyClients, match="3 live clients"):
        h.subscribe("c", ["m"])
    first.close()
    first.close()
    assert len(h) == 2
    assert h.watched["m"] == 2
    h.subscribe("a", ["m"])


async def test_a_gap_names_only_the_machines_a_client_watches():
    h = hub()
    mine, theirs = h.subscribe("a", ["m-1", "m-2"]), h.subscribe("b", ["m-3"])
    h.notify(["m-2", "m-9"], lambda ids: message("gap", machine_ids=ids))
    assert [m["machine_ids"] for m in await taken(mine)] == [["m-2"]]
    assert theirs.waiting == 0


async def test_closing_the_hub_wakes_every_client_and_takes_no_new_one():
    h = hub()
    waiting = asyncio.ensure_future(h.subscribe("a", ["m"]).next())
    await asyncio.sleep(0)
    h.close()
    got = await waiting
    assert got is not None
    assert json.loads(got.body)["reason"] == "stopping"
    with pytest.raises(TooManyClients, match="stopping"):
        h.subscribe("a", ["m"])


async def test_an_event_carries_its_position_as_id():
    assert message("heartbeat", "7-e").event == (
        b'id: 7-e\nevent: heartbeat\ndata: {"v":1,"type":"heartbeat","position":"7-e"}\n\n'
    )
    assert message("dropped").event == b'event: dropped\ndata: {"v":1,"type":"dropped"}\n\n'
