"""The directory of `tidings up`: whose it is, that only one uses it, and what is private."""

import stat
from pathlib import Path

import pytest

from tidings.installation import Installation, InstallationError, Running

NOTE = Running(1, "127.0.0.1:9092", "http://127.0.0.1:8080", ["host"], 4)


def test_a_new_directory_gets_a_secret_that_stays_and_that_only_the_owner_reads(tmp_path: Path) -> None:
    first = Installation(tmp_path / "data")
    first.open()
    secret = first.secret()
    assert secret
    assert len(secret) >= 43
    assert stat.S_IMODE((tmp_path / "data" / "secret").stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "data").stat().st_mode) == 0o700
    first.close()
    second = Installation(tmp_path / "data")
    second.open()
    assert second.secret() == secret
    second.close()


def test_a_second_one_is_refused_and_reads_what_runs(tmp_path: Path) -> None:
    first = Installation(tmp_path)
    first.open()
    assert Installation(tmp_path).running() is None
    first.tell(NOTE)
    with pytest.raises(InstallationError, match=r"^`tidings up` already runs on .* \(process \d+\)"):
        Installation(tmp_path, patience_s=0).open()
    assert Installation(tmp_path).running() == NOTE
    first.close()


def test_a_note_left_behind_by_a_kill_is_not_believed(tmp_path: Path) -> None:
    killed = Installation(tmp_path)
    killed.open()
    killed.tell(NOTE)
    killed.close()  # as the kernel does
    assert Installation(tmp_path).running() is None
    assert Installation(tmp_path).left_behind()


def test_a_foreign_directory_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(InstallationError, match=r"is not a data directory of Tidings \(it holds 'thesis.tex'\)"):
        Installation(tmp_path).open()
    assert [entry.name for entry in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_start_that_was_killed_at_its_first_steps_is_taken_up_again(tmp_path: Path) -> None:
    (tmp_path / "lock").touch()
    (tmp_path / "secret.new").write_text("half")
    installation = Installation(tmp_path)
    installation.open()
    assert installation.secret() != "half"
    installation.close()


def test_a_file_in_place_of_the_directory_is_named(tmp_path: Path) -> None:
    (tmp_path / "data").touch()
    with pytest.raises(InstallationError, match=r"data can't be used \(File exists\): choose another one with --data"):
        Installation(tmp_path / "data").open()
