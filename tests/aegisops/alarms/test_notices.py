from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from aegisops.alarms import lifecycle
from aegisops.alarms.lifecycle import IllegalTransition
from aegisops.alarms.notices import Action, Step, Told, next_step
from aegisops.names import AlarmKind, AlarmState
from tests.aegisops.alarms.test_lifecycle import ACTS, BEGIN, SECOND, an_alarm


def steps(alarm, told=None, lowest=2):
    """Everything the pager is told, and what is remembered then."""
    found = []
    while (step := next_step(alarm, told, lowest)) is not None:
        found.append(str(step.action))
        told = step.told
        assert len(found) < 5
    return found, told


def test_an_alarm_triggers_is_acknowledged_and_resolves():
    up = lifecycle.raised(an_alarm(), BEGIN)
    found, told = steps(up)
    assert found == ["trigger"]
    seen = lifecycle.acknowledged(up, BEGIN, "anna")
    found, told = steps(seen, told)
    assert found == ["acknowledge"]
    assert steps(lifecycle.returned(seen, BEGIN), told) == (["resolve"], None)


def test_what_was_acknowledged_before_the_pager_knew_is_triggered_first():
    seen = lifecycle.acknowledged(lifecycle.raised(an_alarm(), BEGIN), BEGIN, "anna")
    assert steps(seen)[0] == ["trigger", "acknowledge"]


def test_what_came_and_went_unseen_by_the_pager_is_not_told():
    assert steps(lifecycle.returned(lifecycle.raised(an_alarm(), BEGIN), BEGIN))[0] == []


def test_a_new_occurrence_resolves_the_one_before_under_its_own_key():
    up = lifecycle.raised(an_alarm(), BEGIN)
    _, told = steps(up)
    again = lifecycle.raised(lifecycle.returned(up, BEGIN + 1), BEGIN + 2)
    first = next_step(again, told, 2)
    assert first == Step(up.alarm_id, 1, Action.RESOLVE)
    second = next_step(again, first.told, 2)
    assert second == Step(up.alarm_id, 2, Action.TRIGGER)
    assert first.dedup_key != second.dedup_key


def test_lower_priorities_advisories_and_hidden_alarms_page_nobody():
    for alarm in (
        replace(an_alarm(), priority=3),
        replace(an_alarm(), kind=AlarmKind.ADVISORY),
        lifecycle.shelved(an_alarm(), BEGIN, "anna", "cable", BEGIN + SECOND),
    ):
        assert steps(lifecycle.raised(alarm, BEGIN))[0] == []


@given(st.lists(st.tuples(st.sampled_from(sorted(ACTS)), st.booleans()), max_size=30))
def test_whatever_happens_the_pager_ends_at_the_alarms_state(history):
    alarm, told, at = an_alarm(), None, BEGIN
    for act, tells in history:
        at += SECOND
        try:
            alarm = ACTS[act](alarm, at)
        except IllegalTransition:
            continue
        if tells:
            told = steps(alarm, told)[1]
    _, told = steps(alarm, told)
    expected = {
        AlarmState.UNACKNOWLEDGED: Told(alarm.occurrence, Action.TRIGGER),
        AlarmState.ACKNOWLEDGED: Told(alarm.occurrence, Action.ACKNOWLEDGE),
    }.get(alarm.state)
    assert told == expected


def test_what_was_told_survives_as_text():
    told = Told(12, Action.ACKNOWLEDGE)
    assert Told.parse(str(told)) == told
