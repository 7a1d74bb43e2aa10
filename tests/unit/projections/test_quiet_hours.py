"""Quiet hours are what the wall clock shows: compared with a walk by minutes through both changes."""

import os
import subprocess
import sys
from datetime import UTC, datetime, time, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from projections.policy import preferences_of
from projections.quiet_hours import EVERY_DAY, Window, quiet_until, window_of, zone_of

MINUTE, DAY = 60_000, 24 * 3_600_000
LOOKED = 2 * DAY  # how far the walk goes
NIGHT = Window(EVERY_DAY, time(22), time(7))
ZONES = ("Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kolkata", "Pacific/Apia", "UTC")
CHANGES = {  # days in whose middle the clock is set, or a day does not exist
    "Europe/Berlin": ("2026-03-29", "2026-10-25"),
    "America/New_York": ("2026-03-08", "2026-11-01"),
    "Australia/Lord_Howe": ("2026-04-05", "2026-10-04"),  # by half an hour
    "Pacific/Apia": ("2011-12-30", "2020-09-27", "2021-04-04"),  # the first was left out
}


def ms(text: str, zone: str = "UTC", fold: int = 0) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone), fold=fold).timestamp() * 1000)


def shows_quiet(windows: tuple[Window, ...], zone: ZoneInfo, at: int) -> bool:
    """By what a clock on the wall shows, and by the calendar."""
    local = datetime.fromtimestamp(at // 1000, UTC).astimezone(zone)
    clock, today, yesterday = local.time(), local.isoweekday(), (local.date() - timedelta(days=1)).isoweekday()
    return any(
        w.start <= clock < w.end and today in w.days
        if w.start < w.end
        else (clock >= w.start and today in w.days) or (clock < w.end and yesterday in w.days)
        for w in windows
    )


def walk(windows: tuple[Window, ...], zone: ZoneInfo, at: int) -> int | None:
    if not shows_quiet(windows, zone, at):
        return None
    last = at + LOOKED
    at += MINUTE - at % MINUTE
    while at < last and shows_quiet(windows, zone, at):
        at += MINUTE
    return at


times = st.builds(time, st.sampled_from((0, 1, 2, 3, 6, 12, 22, 23)), st.sampled_from((0, 1, 15, 30, 45, 59)))
windows_ = st.lists(
    st.builds(Window, st.one_of(st.just(EVERY_DAY), st.frozensets(st.integers(1, 7), max_size=4)), times, times),
    max_size=4,
).map(tuple)


@st.composite
def moments(draw: st.DrawFn) -> tuple[str, int]:
    zone = draw(st.sampled_from(ZONES))
    around = draw(st.sampled_from(CHANGES.get(zone, ("2026-06-01",))))
    return zone, ms(around, zone) + draw(st.integers(-2 * DAY, 2 * DAY))


@settings(max_examples=150, deadline=None)
@given(windows_, moments())
def test_it_is_quiet_while_the_wall_clock_is_within_a_window_and_until_it_is_in_none(
    windows: tuple[Window, ...], moment: tuple[str, int]
) -> None:
    zone, at = ZoneInfo(moment[0]), moment[1]
    until, walked = quiet_until(windows, zone, at), walk(windows, zone, at)
    if walked is None or walked < at + LOOKED:
        assert until == walked
    else:
        assert until is not None
        assert until >= walked


@pytest.mark.parametrize(
    ("zone", "at", "until"),
    [
        ("Europe/Berlin", "2026-03-28T23:30", "2026-03-29T05:00Z"),  # the night of 8 hours
        ("Europe/Berlin", "2026-10-24T23:30", "2026-10-25T06:00Z"),  # and of 10
        ("America/New_York", "2026-03-07T22:00", "2026-03-08T11:00Z"),
        ("Asia/Kolkata", "2026-03-07T06:59", "2026-03-07T01:30Z"),
        ("UTC", "2026-03-07T07:00", None),
        ("UTC", "2026-03-07T21:59", None),
    ],
)
def test_a_night_ends_at_seven_by_the_clock_on_the_wall(zone: str, at: str, until: str | None) -> None:
    assert quiet_until((NIGHT,), ZoneInfo(zone), ms(at, zone)) == (ms(until) if until else None)


def test_a_window_within_the_hour_that_is_left_out_is_never() -> None:
    left_out = (Window(EVERY_DAY, time(2, 15), time(2, 45)),)
    for minute in range(0, 180, 5):
        assert (
            quiet_until(left_out, ZoneInfo("Europe/Berlin"), ms("2026-03-29T01:00", "Europe/Berlin") + minute * MINUTE)
            is None
        )


def test_what_begins_in_the_hour_that_is_left_out_begins_when_the_clock_is_past_it() -> None:
    berlin = ZoneInfo("Europe/Berlin")
    early = (Window(EVERY_DAY, time(2, 30), time(3, 15)),)
    assert quiet_until(early, berlin, ms("2026-03-29T03:05", "Europe/Berlin")) == ms("2026-03-29T01:15Z")


def test_windows_that_touch_or_overlap_are_one() -> None:
    day = Window(EVERY_DAY, time(7), time(9))
    lunch = Window(EVERY_DAY, time(8, 30), time(12))
    assert quiet_until((NIGHT, day, lunch), ZoneInfo("UTC"), ms("2026-06-01T23:00")) == ms("2026-06-02T12:00Z")


def test_a_weekend_is_two_whole_days() -> None:
    weekend = (Window(frozenset((6, 7)), time(0), time(0)),)
    assert quiet_until(weekend, ZoneInfo("UTC"), ms("2026-06-06T00:00")) == ms("2026-06-08T00:00Z")
    assert quiet_until(weekend, ZoneInfo("UTC"), ms("2026-06-05T23:59")) is None
    assert quiet_until(weekend, ZoneInfo("UTC"), ms("2026-06-08T00:00")) is None


def test_a_night_belongs_to_the_day_on_which_it_begins() -> None:
    friday = (Window(frozenset((5,)), time(22), time(7)),)
    assert quiet_until(friday, ZoneInfo("UTC"), ms("2026-06-06T03:00")) == ms("2026-06-06T07:00Z")
    assert quiet_until(friday, ZoneInfo("UTC"), ms("2026-06-05T03:00")) is None


def test_where_it_is_always_quiet_one_looks_again_after_about_a_week() -> None:
    always = (Window(EVERY_DAY, time(0), time(0)),)
    at = ms("2026-06-01T03:00")
    until = quiet_until(always, ZoneInfo("UTC"), at)
    assert until is not None
    assert 7 * DAY <= until - at <= 9 * DAY


@pytest.mark.parametrize(
    "garbage",
    [
        None, 1, "22:00-07:00", [], {}, {"from": "22:00"}, {"from": "22:00", "to": "7:00"}, {"from": 22, "to": 7},
        {"from": "24:00", "to": "07:00"}, {"from": "22:00\n", "to": "07:00"}, {"from": "22:60", "to": "07:00"},
        {"from": "２２:00", "to": "07:00"},
    ],
)  # fmt: skip
def test_what_is_no_window_says_nothing(garbage: Any) -> None:
    assert window_of(garbage) is None


def test_days_that_are_none_are_passed_over() -> None:
    days = [1, 0, 8, "2", True, None, 3.0, [4], 5]
    assert window_of({"days": days, "from": "22:00", "to": "07:00"}) == Window(frozenset((1, 5)), time(22), time(7))
    assert window_of({"days": "all", "from": "22:00", "to": "07:00"}) == NIGHT


@pytest.mark.parametrize(
    "name",
    ["", "Mars/Olympus", "../../../etc/passwd", "/etc/localtime", "Europe", "Europe/", "a\0b", "\ud800", "x" * 5000, 7,
     None, ["UTC"], "tzdata.zi", "zone1970.tab", "é", ".", "..", "Europe/../Europe/Berlin", "\n"],
)  # fmt: skip
def test_a_name_that_is_no_time_zone_is_passed_over(name: Any) -> None:
    assert zone_of(name, "Asia/Kolkata") == ZoneInfo("Asia/Kolkata")
    assert zone_of(name) == ZoneInfo("UTC")


def test_time_zones_do_not_depend_on_the_machine() -> None:
    """Images of Python are slim: without the package tzdata everybody's nights would be UTC's."""
    code = "from projections.quiet_hours import zone_of; assert zone_of('Europe/Berlin').key == 'Europe/Berlin'"
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, "PYTHONTZPATH": ""})


def test_preferences_with_quiet_hours_that_are_none_still_say_the_rest() -> None:
    read = preferences_of('{"quiet":[3,{"from":"22:00","to":"07:00"}],"time_zone":["x"],"channels":{"email":false}}')
    assert (read.quiet, read.time_zone) == ((NIGHT,), "")
    assert read.wish("cpu", "email").enabled is False
