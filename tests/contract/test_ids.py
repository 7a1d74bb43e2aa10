"""Golden ids: a recipe that changed would say everything again."""

from projections.delivery import delivery_id
from projections.forwarding import decided_id, due_id
from projections.notice import Notice, Step
from topics.dead_letters import dead_letter_id
from topics.ids import alert_notice_id, derived_id, direct_notice_id

NOTICE = Notice("u7", "n", 0, 0, 0, True, "direct", None, None, None, None, None, "info", "", "{}")
STEP = Step("forward", "email", "email", "recipient", "u7", due_at=1764000000000, number=2)


def test_recipes_are_frozen() -> None:
    assert {
        "derived": derived_id("raised", "n", "u"),
        "alert notice": alert_notice_id("overuse", 0, 41, 3, 0),
        "direct notice": direct_notice_id("billing", "r1", "u7"),
        "due": due_id("u7", "n", STEP),
        "decided": decided_id("u7", "n", STEP),
        "delivery": delivery_id(NOTICE, STEP, STEP.number),
        "dead letter": dead_letter_id("notices", 2, 8123, "ab"),
    } == GOLDEN


def test_parts_can_not_run_into_each_other() -> None:
    assert derived_id("q", "a", "bc") != derived_id("q", "ab", "c")


GOLDEN = {
    "derived": "cf08e3b3-72b4-59d8-b928-c488d21ddc9c",
    "alert notice": "93c535c4-d6a7-5d37-bc26-f627a7265230",
    "direct notice": "81793920-87a2-50ad-ae7f-6e1c650466fd",
    "due": "d69aabe1-fd58-552b-8e84-04ca7339beb4",
    "decided": "69b32fb9-be1c-5595-8902-05a744256b66",
    "delivery": "3b8385d9-f7b2-587c-ace4-9a5f91ec7533",
    "dead letter": "723d0738-ccfa-5b2a-bbf1-9309397a31e6",
}
