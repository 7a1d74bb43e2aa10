"""The examples of docs/forwarding.md are accepted as they stand there."""

from __future__ import annotations

import json
import re
from pathlib import Path

from api.preferences import checked
from api.routes.alert_configs import AlertConfig
from api.routes.silences import NewSilence

PAGE = (Path(__file__).parents[3] / "docs" / "forwarding.md").read_text()


def test_the_examples_are_accepted() -> None:
    config, preferences = (json.loads(t) for t in re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL))
    forward = AlertConfig.model_validate(config).forward
    assert forward is not None
    assert set(forward.model_fields_set) == {"steps", "digest", "throttle", "repeat", "override", "tell_resolved"}
    assert checked(preferences, ("email", "telegram")).time_zone == "Europe/Berlin"
    silences = re.findall(r"POST /v1/silences +(\{.*\})", PAGE)
    assert len(silences) == 3
    for silence in silences:
        NewSilence.model_validate(json.loads(silence))
