"""The alert's file: what it may say, and one clear line for what it may not."""

from __future__ import annotations

from pathlib import Path

import pytest

from wrapper.alert_file import AlertFileError, load

EXAMPLES = Path(__file__).resolve().parents[3] / "examples" / "alerts.toml"


def test_the_examples_can_be_loaded_and_lie_beside_their_file() -> None:
    alerts = load([EXAMPLES], ("host",), 4)
    assert [a.name for a in alerts] == ["overuse", "disk-nearly-full"]
    assert (alerts[1].cwd / alerts[1].run[0]).is_file()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[[alert]", "Expected"),
        ("", "alert: Field required"),
        ('[[alert]]\nname = "a"\nrun = "sh -c x"', "alert.0.run"),
        ('[[alert]]\nname = "a/b"\nrun = ["x"]', "alert.0.name"),
        ('[[alert]]\nname = "a"\nrun = ["x"]\nnam = 1', "alert.0.nam"),
        ('[[alert]]\nname = "a"\nrun = ["x"]\nentities = ["vm"]', "watches 'vm', but the entity types are: host"),
        ('[[alert]]\nname = "a"\nrun = ["x"]\nshards = 5', "5 shards, but topics have 4 partitions"),
        ('[[alert]]\nname = "a"\nrun = ["x"]\nlimits = { memory = "lots" }', "alert.0.limits.memory"),
        ('[[alert]]\nname = "a"\nrun = ["x"]\nlimits = { files = 1 }', "alert.0.limits.files"),
        ('[[alert]]\nname = "a"\nrun = ["x"]\n[[alert]]\nname = "a"\nrun = ["y"]', "twice"),
    ],
)
def test_a_bad_file_is_refused_with_the_field_at_fault(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "alerts.toml"
    file.write_text(text)
    with pytest.raises(AlertFileError) as error:
        load([file], ("host",), 4)
    assert message in str(error.value)
    assert str(file) in str(error.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(AlertFileError, match="No such file"):
        load([tmp_path / "none.toml"], ("host",), 4)


@pytest.mark.parametrize(("text", "size"), [('"512M"', 512 << 20), ('"2G"', 2 << 30), ("4096", 4096), ('"8K"', 8192)])
def test_a_size_may_have_a_unit(tmp_path: Path, text: str, size: int) -> None:
    file = tmp_path / "alerts.toml"
    file.write_text(f'[[alert]]\nname = "a"\nrun = ["x"]\nlimits = {{ memory = {text} }}')
    assert load([file], ("host",), 4)[0].limits.memory == size
