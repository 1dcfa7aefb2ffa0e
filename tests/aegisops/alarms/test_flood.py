from aegisops.alarms import flood, lifecycle
from tests.aegisops.alarms.test_lifecycle import BEGIN, SECOND, an_alarm

MINUTE = 60 * SECOND


def test_ten_raises_in_ten_minutes_are_no_flood_and_eleven_are():
    ten = [BEGIN + i * MINUTE // 2 for i in range(10)]
    assert flood.since(ten, ten[-1]) is None
    eleven = [*ten, ten[-1] + 1]
    assert flood.since(eleven, eleven[-1]) == eleven[-1]


def test_a_flood_ends_when_fewer_than_five_come_in_ten_minutes():
    raises = [BEGIN + i * SECOND for i in range(20)]
    assert flood.since(raises, BEGIN + 9 * MINUTE) == BEGIN + 10 * SECOND
    assert flood.since(raises, BEGIN + 11 * MINUTE) is None
    slow = [*raises, *(BEGIN + (10 + 2 * i) * MINUTE for i in range(5))]
    assert flood.since(slow, slow[-1]) is None or flood.since(slow, slow[-1]) >= raises[10]


def test_a_flood_that_ended_and_one_that_began_later_are_two():
    first = [BEGIN + i * SECOND for i in range(15)]
    later = [BEGIN + 3_600 * SECOND + i * SECOND for i in range(15)]
    assert flood.since(first + later, later[-1]) == later[10]


def test_alarms_are_grouped_by_cause_and_area_with_the_first_out_in_front():
    a = lifecycle.raised(an_alarm("m-2"), BEGIN, is_first_out=True)
    b = lifecycle.raised(an_alarm("m-1"), BEGIN + 1)
    c = lifecycle.raised(an_alarm("m-3", group="vibration"), BEGIN + 2, is_first_out=True)
    quiet = lifecycle.shelved(
        lifecycle.raised(an_alarm("m-4"), BEGIN), BEGIN, "anna", "test", BEGIN + SECOND
    )
    found = flood.groups([c, b, a, quiet])
    assert [(g.cause, g.first_out, g.alarm_ids) for g in found] == [
        ("coolant", a.alarm_id, (a.alarm_id, b.alarm_id)),
        ("vibration", c.alarm_id, (c.alarm_id,)),
    ]
