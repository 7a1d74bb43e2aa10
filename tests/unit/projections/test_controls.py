"""What is revoked stays so until it has expired, however the log was cut into batches."""

from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import select

from projections.outgoing import Refused
from projections.sql.folds import fold_of
from projections.sql.schema import revocations, silences
from projections.sql.store import Store
from projections.sql.views.revocations import Revocation, all_of
from topics.catalogue import CONTROLS
from topics.events import Event, RecipientDeleted, Record, SilenceEnded, SilenceSet, TokenRevoked
from topics.fetch import Spot

SPOT = Spot(CONTROLS, 0)
BY: dict[str, Any] = {"event_id": "e", "producer": "test", "occurred_at": 0}
FOR_EVER = 10**15


def token(token_id: str, until: int) -> TokenRevoked:
    return TokenRevoked(**BY, token_id=token_id, until=until)


def user(name: str, issued_until: int) -> TokenRevoked:
    return TokenRevoked(**BY, token_id="", until=FOR_EVER, user=name, issued_until=issued_until)


SILENCE = SilenceSet(
    **BY, silence_id="s", by="ann", alert=None, entity_type=None, entity_id=None, user="ann", until=5, body=b"{}"
)
LOG: list[tuple[str, Event | None]] = [
    ("token:a", token("a", 1_002)),
    ("s", SILENCE),
    ("token:b", token("b", FOR_EVER)),
    ("tokens-of:ann", user("ann", 10)),
    ("token:a", token("a", 1_003)),  # on the log at 1004: a has expired
    ("tokens-of:ann", user("ann", 20)),
    ("token:s", token("s", FOR_EVER)),  # no silence
    ("token:c", token("c", FOR_EVER)),
    ("token:c", None),
    ("s", SilenceEnded(**BY, silence_id="s", by="ann")),
]
LEFT = [Revocation("", "ann", 20, FOR_EVER), Revocation("b", None, 0, FOR_EVER), Revocation("s", None, 0, FOR_EVER)]


@pytest.mark.parametrize("size", [1, 2, 3, len(LOG)])
def test_every_way_to_cut_the_log_gives_the_same_rows(database: Callable[[str], str], size: int) -> None:
    store, fold = Store(database("t")), fold_of(CONTROLS)
    store.prepare()
    records = [Record(*SPOT, i, 1_000 + i, key, event, b"") for i, (key, event) in enumerate(LOG)]
    for start in range(0, len(records), size):
        batch = records[start : start + size]
        with store.writing() as tx:
            state = fold.load(tx, SPOT, batch)
            for record in batch:
                fold.apply(state, record)
            fold.save(tx, SPOT, state)
    with store.reading() as tx:
        assert sorted(all_of(tx), key=str) == sorted(LEFT, key=str)
        assert tx.execute(select(silences)).all() == []
        assert {r.revocation for r in tx.execute(select(revocations))} == {"tokens-of:ann", "token:b", "token:s"}
    store.close()


def test_what_has_no_place_there_is_refused() -> None:
    event = RecipientDeleted(**BY, recipient_id="x", version=1)
    fold = fold_of(CONTROLS)
    with pytest.raises(Refused):
        fold.apply(fold.load(None, SPOT, []), Record(*SPOT, 0, 0, "x", event, b""))  # type: ignore[arg-type]
