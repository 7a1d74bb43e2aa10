"""What became of each forward of a notice, in a few words, from the moments of its story."""

from __future__ import annotations

from projections.explain import Story
from projections.narration import Moment
from projections.words import clock, reason


def outcomes(story: Story) -> dict[str, str]:
    """Step to its outcome; steps of one channel that go together in a digest share what became of that."""
    held: dict[str, list[str]] = {}
    sent: dict[str, list[str]] = {}
    return {step: outcome for moment in story.moments for step, outcome in _of(moment, held, sent)}


def _of(moment: Moment, held: dict[str, list[str]], sent: dict[str, list[str]]) -> list[tuple[str, str]]:
    details = moment.details
    match moment.event:
        case "NoticeRaised":
            return [(lane["step"], "waits for its time") for lane in details["lanes"]]
        case "NoticeMarked" | "NoticeEnded":
            why = reason(details.get("mark", "ended"))
            return [(step, f"not sent: {why}") for step in details.get("stopped", ())]
        case "Decided":
            return [(step, _answer(moment)) for step in _steps(moment, held)]
        case "DeliveryRequested":
            steps = held.get(details["step"], [details["step"]])
            sent[details["delivery_id"]] = steps
            return [(step, "on its way") for step in steps]
    words = {
        "DeliverySent": f"sent {clock(moment.at)}",
        "DeliveryRetried": f"tried again, for {details.get('answer')}",
        "DeliveryFailed": f"given up: {reason(details.get('reason', ''))}, {details.get('answer')}",
        "DeliveryCancelled": f"recalled: {reason(details.get('reason', ''))}",
    }
    if moment.event not in words:
        return []
    return [(step, words[moment.event]) for step in sent.get(details["delivery_id"], ())]


def _steps(moment: Moment, held: dict[str, list[str]]) -> list[str]:
    """The steps that a decision speaks of; a digest's are those that were put into it."""
    details = moment.details
    if details["what"] == "digest":
        return held.get(details["step"], [details["step"]])
    name = details["step"] if details["what"] == "forward" else f"{details['what']} {details['step']}"
    if "digest" in details:
        held.setdefault(details["step"].partition("#")[0], []).append(name)
    return [name]


def _answer(moment: Moment) -> str:
    why = reason(moment.details["reason"])
    match moment.details["answer"]:
        case "deliver":
            return "to be sent"
        case "skip":
            return f"not sent: {why}"
    return f"not before {clock(moment.details['until'])}: {why}"
