import pytest

from aegisops.errors import ConfigurationError, ServiceUnavailable
from aegisops.importers import load, publish
from aegisops.importers.publish import POLL_SECONDS, STALL_SECONDS
from aegisops.lake import Lake
from aegisops.names import EVENTS_TOPIC, READINGS_TOPIC
from aegisops.schemas.tables import MACHINES
from aegisops.settings import StreamSettings
from tests.aegisops.importers.import_files import folder

NOW = 1_767_400_000_000_000  # 2026-01-03
STREAM = StreamSettings()


class Topics:
    """A broker of one partition a topic, and a reader that takes one message per look."""

    def __init__(self, takes=1):
        self.sent = []
        self.read = 0
        self.most_unread = 0
        self.takes = takes
        self.now = 0.0

    def publish(self, topic, key, record):
        self.sent.append((topic, key, record))
        self.most_unread = max(self.most_unread, len(self.sent) - self.read)

    def flush(self):
        pass

    def ends(self):
        return {("all", 0): len(self.sent)}

    def committed(self):
        self.read = min(self.read + self.takes, len(self.sent))
        return {("all", 0): self.read}

    def sleep(self, seconds):
        self.now += seconds

    def send(self, path, **options):
        return publish(
            self, Lake(path.parent / "lake"), load(path), now_us=NOW, stream=STREAM,
            consumers=self, sleep=self.sleep, monotonic=lambda: self.now, **options,
        )  # fmt: skip


def test_readings_and_events_come_in_time_order_with_the_machine_as_key(tmp_path):
    topics, told = Topics(), []
    published = topics.send(folder(tmp_path / "in"), tell=lambda *step: told.append(step))
    assert [(topic, key) for topic, key, _ in topics.sent] == [
        (READINGS_TOPIC, "A"),
        (READINGS_TOPIC, "B"),
        (EVENTS_TOPIC, "A"),
    ]
    assert (published.readings, published.events, published.messages) == (5, 1, 3)
    assert told[-1] == ("messages", 3, 3)
    assert topics.read == 3
    assert set(topics.sent[0][2]) == {"machine_id", "seq", "sent_at", "blocks"}


def test_the_machines_are_registered_before_their_first_reading(tmp_path):
    lake = Lake(tmp_path / "lake")
    known = []

    class Looks(Topics):
        def publish(self, topic, key, record):
            known.append(key in lake.scan(MACHINES).collect()["machine_id"].to_list())

        def ends(self):
            return {}

    Looks().send(folder(tmp_path / "in"))
    assert known == [True, True, True]


def test_no_more_is_in_flight_than_the_limit_allows(tmp_path):
    topics = Topics()
    topics.send(folder(tmp_path / "in"), most_bytes=1)
    assert topics.most_unread == 1
    fast = Topics()
    fast.send(folder(tmp_path / "in2"), most_bytes=10**6)
    assert fast.most_unread == 3


def test_a_reader_that_stands_still_is_reported_and_not_awaited_for_ever(tmp_path):
    topics = Topics(takes=0)
    with pytest.raises(ServiceUnavailable, match=r"3 messages.*start the lake writer"):
        topics.send(folder(tmp_path / "in"))
    assert topics.now == pytest.approx(STALL_SECONDS, abs=2 * POLL_SECONDS)


def test_data_older_than_the_streams_accept_is_refused_before_anything_is_sent(tmp_path):
    topics = Topics()
    with pytest.raises(ConfigurationError, match=r"AEGIS_STREAM__MAX_PAST_DAYS=3[0-9]"):
        publish(
            topics, Lake(tmp_path / "lake"), load(folder(tmp_path / "in")),
            now_us=NOW, stream=StreamSettings(max_past_days=1),
        )  # fmt: skip
    assert not topics.sent
    assert Lake(tmp_path / "lake").version(MACHINES) == -1
