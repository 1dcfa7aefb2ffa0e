from dataclasses import replace

from aegisops.alarms import journal, kpi, lifecycle
from aegisops.names import AlarmKind
from tests.aegisops.alarms.test_lifecycle import BEGIN as NOW
from tests.aegisops.alarms.test_lifecycle import SECOND, an_alarm

HOUR = 3_600 * SECOND
BEGIN = NOW // (600 * SECOND) * (600 * SECOND)  # a 10-minute period begins here


class Log:
    """A journal that is written by living alarms."""

    def __init__(self) -> None:
        self.records: list[dict] = []

    def keep(self, *alarms: lifecycle.Alarm) -> lifecycle.Alarm:
        self.records += [journal.record(alarm) for alarm in alarms]
        return alarms[-1]

    def figures(self, begin: int = BEGIN, end: int = BEGIN + HOUR) -> dict:
        return kpi.figures(sorted(self.records, key=lambda r: r["changed_at"]), begin, end)


def raised(log: Log, machine_id: str, at: int, **more: object) -> lifecycle.Alarm:
    return log.keep(lifecycle.raised(an_alarm(machine_id, **more), at))


def test_an_empty_journal_has_figures_too():
    found = Log().figures()
    assert (found["annunciated"], found["per_hour"], found["flood_share"]) == (0, 0, 0)
    assert found["acknowledged_share"] is None


def test_only_raises_that_were_shown_and_no_advisories_count():
    log = Log()
    raised(log, "m-1", BEGIN)
    raised(log, "m-2", BEGIN, kind=AlarmKind.ADVISORY)
    log.keep(lifecycle.raised(an_alarm("m-3"), BEGIN, machine_state="stopped"))
    hidden = lifecycle.shelved(an_alarm("m-4"), BEGIN, "anna", "cable", BEGIN + HOUR)
    log.keep(hidden, lifecycle.raised(hidden, BEGIN + 1))
    found = log.figures(end=BEGIN + 2 * HOUR)
    assert (found["annunciated"], found["per_hour"]) == (1, 0.5)
    assert (found["standing"], found["suppressed"], found["shelved"]) == (1, 1, 1)


def test_a_ten_minute_period_with_more_than_ten_is_a_flood():
    log = Log()
    for i in range(10):
        raised(log, f"a-{i}", BEGIN + i)
    for i in range(11):
        raised(log, f"b-{i}", BEGIN + 1_200 * SECOND + i)
    found = log.figures()
    assert found["flood_share"] == 1 / 6
    assert found["peak_per_10_min"] == 11


def test_the_ten_most_frequent_alarms_and_their_share():
    log = Log()
    for n in range(12):
        alarm = an_alarm(f"m-{n}")
        for i in range(12 - n):
            at = BEGIN + i * 120 * SECOND + n
            alarm = log.keep(lifecycle.raised(alarm, at))
            alarm = log.keep(lifecycle.returned(alarm, at + SECOND))
    found = log.figures()
    assert found["annunciated"] == 78
    assert found["top_10_share"] == (78 - 3) / 78
    assert [row["count"] for row in found["most_frequent"]] == list(range(12, 2, -1))
    assert found["most_frequent"][0]["machine_id"] == "m-0"


def test_three_raises_within_a_minute_are_a_burst_of_chatter():
    log = Log()
    alarm = an_alarm()
    for i in range(7):
        at = BEGIN + i * 15 * SECOND
        alarm = log.keep(lifecycle.raised(alarm, at))
        alarm = log.keep(lifecycle.returned(alarm, at + SECOND))
    raised(log, "calm", BEGIN)
    (row,) = log.figures()["chattering"]
    assert (row["machine_id"], row["bursts"]) == ("m-1", 2)


def test_what_was_raised_more_than_a_day_ago_and_still_stands_is_stale():
    log = Log()
    day = 24 * HOUR
    old = raised(log, "old", BEGIN - day - HOUR)
    log.keep(lifecycle.acknowledged(old, BEGIN, "anna"))
    gone = raised(log, "gone", BEGIN - day - HOUR)
    log.keep(lifecycle.returned(gone, BEGIN))
    raised(log, "new", BEGIN)
    shelved = raised(log, "shelved", BEGIN - day - HOUR)
    log.keep(lifecycle.shelved(shelved, BEGIN, "anna", "cable", BEGIN + day))
    (row,) = log.figures()["stale"]
    assert (row["machine_id"], row["raised_at"]) == ("old", BEGIN - day - HOUR)


def test_the_time_to_acknowledge_is_that_of_the_same_occurrence():
    log = Log()
    first = raised(log, "m-1", BEGIN)
    log.keep(lifecycle.acknowledged(first, BEGIN + 30 * SECOND, "anna"))
    raised(log, "m-2", BEGIN)
    earlier = raised(log, "m-3", BEGIN - HOUR)
    log.keep(lifecycle.acknowledged(earlier, BEGIN + SECOND, "anna"))
    found = log.figures()
    assert found["acknowledged_share"] == 0.5
    assert found["median_seconds_to_acknowledge"] == 30


def test_shares_by_priority():
    log = Log()
    raised(log, "m-1", BEGIN)
    log.keep(lifecycle.raised(replace(an_alarm("m-2"), priority=3), BEGIN))
    assert log.figures()["priorities"] == {"1": 0.5, "3": 0.5}
