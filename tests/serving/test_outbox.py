from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from aegisops.errors import Retryable, ServiceUnavailable
from serving.outbox import Message, Outbox, OutboxFull


class Broker:
    """Takes records; delivers or fails them when told."""

    def __init__(self) -> None:
        self.taken: list[tuple[bytes, Callable[[Exception | None], None]]] = []
        self.full = False

    def prepare(self) -> None:
        pass

    def publish(
        self, topic: str, key: str, value: bytes, done: Callable[[Exception | None], None]
    ) -> None:
        if self.full:
            raise Retryable("full")
        self.taken.append((value, done))

    def poll(self) -> None:
        pass

    def close(self) -> None:
        pass

    def report(self, error: Exception | None = None) -> list[bytes]:
        taken, self.taken = self.taken, []
        for _, done in taken:
            done(error)
        return [value for value, _ in taken]


def messages(*values: bytes) -> list[Message]:
    return [Message("t", "k", value) for value in values]


@pytest.fixture
def broker() -> Broker:
    return Broker()


def test_records_go_out_in_order_and_leave_when_delivered(tmp_path: Path, broker: Broker) -> None:
    outbox = Outbox(tmp_path, broker, 10)
    outbox.append(messages(b"1", b"2"))
    outbox.append(messages(b"3"))
    outbox.pump()
    outbox.pump()
    assert broker.report() == [b"1", b"2", b"3"]
    assert outbox.depth == 3
    outbox.pump()
    assert outbox.depth == 0
    outbox.close()


def test_what_was_not_delivered_is_sent_again_and_what_was_is_not(
    tmp_path: Path, broker: Broker
) -> None:
    outbox = Outbox(tmp_path, broker, 10)
    outbox.append(messages(b"1", b"2", b"3"))
    outbox.pump()
    (_, one), (_, two), (_, three) = broker.taken
    broker.taken.clear()
    one(None)
    two(ServiceUnavailable("broker away"))
    three(None)
    outbox.pump()
    assert outbox.failure == "broker away"
    assert [value for value, _ in broker.taken] == [b"2"]
    broker.report()
    outbox.pump()
    assert (outbox.depth, outbox.failure) == (0, None)
    outbox.close()


def test_a_full_producer_is_tried_again_without_a_gap(tmp_path: Path, broker: Broker) -> None:
    outbox = Outbox(tmp_path, broker, 10)
    outbox.append(messages(b"1", b"2"))
    broker.full = True
    outbox.pump()
    broker.full = False
    outbox.pump()
    assert broker.report() == [b"1", b"2"]
    outbox.close()


def test_a_full_outbox_refuses_and_changes_nothing(tmp_path: Path, broker: Broker) -> None:
    outbox = Outbox(tmp_path, broker, 2)
    outbox.append(messages(b"1"), ("head", "one"))
    with pytest.raises(OutboxFull):
        outbox.append(messages(b"2", b"3"), ("head", "three"))
    assert outbox.depth == 1
    assert outbox.load_state("head") == "one"
    outbox.close()


def test_what_a_killed_process_left_is_sent_by_the_next(tmp_path: Path, broker: Broker) -> None:
    outbox = Outbox(tmp_path, broker, 10)
    outbox.append(messages(b"1", b"2"), ("head", "two"))
    outbox.pump()
    outbox._lock.close()  # what the kernel does with the lock of a killed process
    after = Broker()
    again = Outbox(tmp_path, after, 10)
    assert (again.depth, again.load_state("head")) == (2, "two")
    again.pump()
    assert after.report() == [b"1", b"2"]
    again.pump()
    again.append(messages(b"3"))
    again.pump()
    assert after.report() == [b"3"]
    again.close()
    outbox._db.close()


def test_two_processes_have_an_outbox_each(tmp_path: Path, broker: Broker) -> None:
    one, two = Outbox(tmp_path, broker, 10), Outbox(tmp_path, broker, 10)
    one.append(messages(b"1"))
    assert (one.depth, two.depth) == (1, 0)
    one.close()
    two.close()


def test_a_failed_record_is_sent_again_from_the_file_and_newer_ones_from_memory(
    tmp_path: Path, broker: Broker
) -> None:
    outbox = Outbox(tmp_path, broker, 10)
    outbox.append(messages(b"1", b"2"))
    outbox.pump()
    assert broker.report(ServiceUnavailable("away")) == [b"1", b"2"]
    outbox.append(messages(b"3"))
    outbox.pump()
    assert broker.report() == [b"1", b"2", b"3"]
    outbox.pump()
    assert outbox.depth == 0
    outbox.close()


def test_more_records_than_memory_holds_go_out_in_order(
    tmp_path: Path, broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("serving.outbox._IN_MEMORY", 3)
    outbox = Outbox(tmp_path, broker, 100)
    sent: list[bytes] = []
    for i in range(10):
        outbox.append(messages(b"%d" % i))
        if i % 4 == 3:
            outbox.pump()
            sent += broker.report()
    outbox.pump()
    sent += broker.report()
    outbox.pump()
    assert sent == [b"%d" % i for i in range(10)]
    assert outbox.depth == 0
    outbox.close()
