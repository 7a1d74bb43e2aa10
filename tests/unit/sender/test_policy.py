"""What follows from an attempt is a pure function of it."""

from hypothesis import given
from hypothesis import strategies as st

from sender.channels.channel import Rejected, RetryLater, Sent
from sender.policy import CAP_MS, Again, pause_ms, verdict

DAY = 86_400_000


def after(result: Sent | RetryLater | Rejected, *, attempt: int = 1, now: int = 0, deadline_at: int = DAY) -> object:
    return verdict(result, delivery_id="d", attempt=attempt, now=now, deadline_at=deadline_at, first_retry_ms=10_000)


def test_sent_is_done_even_after_the_deadline() -> None:
    assert after(Sent("250 ok"), now=DAY + 1) == Sent("250 ok")


def test_rejected_is_given_up_with_its_reason() -> None:
    assert after(Rejected("550 no")) == Rejected("550 no")
    assert after(Rejected("?", reason="no_channel")) == Rejected("?", "no_channel")


def test_a_retry_that_would_come_after_the_deadline_is_too_late_now() -> None:
    assert after(RetryLater("451"), now=DAY - 1) == Rejected("451", "too_late")


def test_the_times_of_retries_are_frozen() -> None:
    """Golden: every sender of every version says the same time for the same attempt."""
    assert after(RetryLater("451")) == Again(GOLDEN[0], "451")
    assert [pause_ms("d", n, 10_000) for n in (1, 2, 3, 10, 100)] == GOLDEN


GOLDEN = [7756, 17187, 28336, 2342149, 2205199]


@given(st.text(max_size=40), st.integers(1, 1000))
def test_back_off_doubles_up_to_an_hour_and_its_jitter_takes_at_most_half(delivery_id: str, attempt: int) -> None:
    full = min(CAP_MS, 10_000 * 2 ** (attempt - 1))
    assert full // 2 <= pause_ms(delivery_id, attempt, 10_000) <= full
