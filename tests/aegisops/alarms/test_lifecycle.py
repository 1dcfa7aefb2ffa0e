"""The lifecycle under random histories: legal steps only, and the journal gives the state back."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from aegisops.alarms import journal, lifecycle
from aegisops.alarms.lifecycle import Alarm, IllegalTransition
from aegisops.names import AlarmKind, AlarmState, Outcome, Transition

SECOND = 1_000_000
BEGIN = 1_790_000_000 * SECOND


def an_alarm(machine_id: str = "m-1", **more: object) -> Alarm:
    made = Alarm(
        lifecycle.alarm_id("hot", machine_id),
        "hot",
        machine_id,
        "pump",
        "S",
        "A",
        AlarmKind.ALARM,
        1,
        "coolant",
    )
    return replace(made, **more)


ACTS = {
    "raise": lambda a, t: lifecycle.raised(a, t, value=7.0),
    "raise while stopped": lambda a, t: lifecycle.raised(a, t, machine_state="stopped"),
    "return": lifecycle.returned,
    "re-alarm": lifecycle.re_alarmed,
    "suppress": lambda a, t: lifecycle.suppressed(a, t, "stopped"),
    "unsuppress": lifecycle.unsuppressed,
    "acknowledge": lambda a, t: lifecycle.acknowledged(a, t, "anna"),
    "shelve": lambda a, t: lifecycle.shelved(a, t, "anna", "cable", t + 60 * SECOND),
    "unshelve": lifecycle.unshelved,
    "take out": lambda a, t: lifecycle.taken_out_of_service(a, t, "anna", "repair"),
    "put back": lambda a, t: lifecycle.returned_to_service(a, t, "anna"),
    "outcome": lambda a, t: lifecycle.outcome_reported(a, t, "anna", Outcome.FALSE_ALARM, "f-1"),
}
N, U, K, R = (
    AlarmState.NORMAL,
    AlarmState.UNACKNOWLEDGED,
    AlarmState.ACKNOWLEDGED,
    AlarmState.RETURNED_UNACKNOWLEDGED,
)
S, P, O = AlarmState.SHELVED, AlarmState.SUPPRESSED, AlarmState.OUT_OF_SERVICE  # noqa: E741
MAY_LEAD_TO = {
    Transition.RAISED: {N: {U, P}, R: {U, P}, S: {S}, P: {P}, O: {O}},
    Transition.RETURNED: {U: {R}, K: {N}, S: {S}, P: {P}, O: {O}},
    Transition.ACKNOWLEDGED: {U: {K}, R: {N}},
    Transition.RE_ALARMED: {K: {U}},
    Transition.SUPPRESSED: {K: {P}},
    Transition.UNSUPPRESSED: {P: {U, N}, S: {S}, O: {O}},
    Transition.SHELVED: {N: {S}, U: {S}, K: {S}, R: {S}, P: {S}},
    Transition.UNSHELVED: {S: {U, N, P}},
    Transition.TAKEN_OUT_OF_SERVICE: {x: {O} for x in (N, U, K, R, S, P)},
    Transition.RETURNED_TO_SERVICE: {O: {U, N, P}},
    Transition.OUTCOME_REPORTED: {x: {x} for x in AlarmState},
}
"""ISA-18.2's diagram: what each transition may do to each state."""


class Lives(RuleBasedStateMachine):
    """Two alarms, a clock, and everything that can happen to them in any order."""

    @initialize()
    def begin(self) -> None:
        self.now = BEGIN
        self.alarms = {a.alarm_id: a for a in (an_alarm("m-1"), an_alarm("m-2"))}
        self.records: list[dict] = []

    @rule(ms=st.integers(0, 90_000))
    def wait(self, ms: int) -> None:
        self.now += ms * 1_000

    @rule(which=st.integers(0, 1), act=st.sampled_from(sorted(ACTS)))
    def try_it(self, which: int, act: str) -> None:
        before = list(self.alarms.values())[which]
        others = {i: a for i, a in self.alarms.items() if i != before.alarm_id}
        try:
            after = ACTS[act](before, self.now)
        except IllegalTransition:
            return
        assert after.last is not None
        assert after.state in MAY_LEAD_TO[after.last.transition].get(before.state, set())
        assert after.version > before.version
        assert after.last.from_version == before.version
        self.alarms[after.alarm_id] = after
        self.records.append(journal.record(after))
        assert {i: a for i, a in self.alarms.items() if i != after.alarm_id} == others

    @precondition(lambda self: any(a.shelved for a in self.alarms.values()))
    @rule()
    def the_shelf_time_ends(self) -> None:
        for alarm in self.alarms.values():
            if alarm.shelved:
                self.now = max(self.now, alarm.shelved.until or 0)
                back = lifecycle.unshelved(alarm, self.now)
                if not back.is_hidden:
                    assert back.state is (U if back.is_active else N)
                self.alarms[alarm.alarm_id] = back
                self.records.append(journal.record(back))
                return

    @invariant()
    def the_journal_gives_the_states_back_in_any_order(self) -> None:
        if not hasattr(self, "records"):
            return
        expected = {i: a for i, a in self.alarms.items() if a.version}
        assert journal.replay(self.records) == expected
        assert journal.replay([*reversed(self.records), *self.records]) == expected

    @invariant()
    def what_nobody_acknowledged_is_never_normal(self) -> None:
        for alarm in getattr(self, "alarms", {}).values():
            if alarm.is_active and not alarm.is_hidden:
                assert alarm.state in {U, K}
            if alarm.state is K:
                assert alarm.acknowledged_by == "anna"


TestLives = Lives.TestCase
TestLives.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


def test_an_unacknowledged_alarm_is_not_taken_away_by_the_machine_state():
    alarm = lifecycle.raised(an_alarm(), BEGIN)
    with pytest.raises(IllegalTransition):
        lifecycle.suppressed(alarm, BEGIN, "stopped")


def test_a_suppressed_condition_that_stays_asks_when_the_machine_runs_again():
    alarm = lifecycle.raised(an_alarm(), BEGIN, machine_state="stopped")
    assert alarm.state is AlarmState.SUPPRESSED
    assert lifecycle.unsuppressed(alarm, BEGIN + 1).state is AlarmState.UNACKNOWLEDGED


def test_a_shelved_alarm_that_was_acknowledged_asks_anew_when_it_comes_back():
    alarm = lifecycle.acknowledged(lifecycle.raised(an_alarm(), BEGIN), BEGIN, "anna")
    away = lifecycle.shelved(alarm, BEGIN, "anna", "cable", BEGIN + SECOND)
    assert lifecycle.unshelved(away, BEGIN + SECOND).state is AlarmState.UNACKNOWLEDGED


@pytest.mark.parametrize("reason", ["", "  "])
def test_nothing_is_shelved_or_taken_out_without_a_reason(reason: str):
    alarm = lifecycle.raised(an_alarm(), BEGIN)
    with pytest.raises(IllegalTransition, match="reason"):
        lifecycle.shelved(alarm, BEGIN, "anna", reason, BEGIN + SECOND)
    with pytest.raises(IllegalTransition, match="reason"):
        lifecycle.taken_out_of_service(alarm, BEGIN, "anna", reason)


def test_a_repeated_request_is_known_by_subject_version_and_content():
    alarm = lifecycle.raised(an_alarm(), BEGIN)
    done = lifecycle.acknowledged(alarm, BEGIN, "anna", "seen")
    asked = (alarm.version, Transition.ACKNOWLEDGED, "anna", "seen")
    assert lifecycle.is_repeat(done, *asked)
    assert not lifecycle.is_repeat(done, *asked[:2], "ben", "seen")
    assert not lifecycle.is_repeat(done, *asked[:3], "other")
    assert not lifecycle.is_repeat(alarm, *asked)


def test_versions_rise_even_when_the_clock_stands_or_states_were_lost():
    alarm = lifecycle.raised(an_alarm(), BEGIN)
    again = lifecycle.returned(alarm, BEGIN)
    assert again.version == alarm.version + 1
    fresh = lifecycle.raised(an_alarm(), BEGIN + 60 * SECOND)  # the store was emptied
    assert fresh.version > again.version


def test_three_raises_within_a_minute_are_chatter():
    alarm, at = an_alarm(), BEGIN
    for _ in range(3):
        assert not alarm.is_chattering(at)
        alarm = lifecycle.returned(lifecycle.raised(alarm, at), at + SECOND)
        at += 20 * SECOND
    assert alarm.is_chattering(at)
    assert not alarm.is_chattering(at + 3_600 * SECOND)


def test_only_the_first_alarm_of_a_cause_in_an_area_is_first_out():
    first = lifecycle.raised(an_alarm("m-1"), BEGIN, is_first_out=True)
    assert not lifecycle.first_out(an_alarm("m-2"), [first])
    assert lifecycle.first_out(an_alarm("m-2", area="B"), [first])
    assert lifecycle.first_out(an_alarm("m-2", group="vibration"), [first])
    assert lifecycle.first_out(an_alarm("m-2"), [lifecycle.returned(first, BEGIN + 1)])
    assert lifecycle.first_out(an_alarm("m-1"), [first])


def test_a_snapshot_survives_the_way_through_json():
    alarm = lifecycle.raised(an_alarm(), BEGIN, value=1.5, setpoint=1.0, machine_state="stopped")
    alarm = lifecycle.shelved(alarm, BEGIN, "anna", "cable", BEGIN + SECOND)
    alarm = lifecycle.outcome_reported(alarm, BEGIN, "anna", Outcome.CONFIRMED, "f-1")
    assert lifecycle.load(lifecycle.dump(alarm)) == alarm
