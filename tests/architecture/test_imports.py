"""The import table of ARCHITECTURE.md holds: its contracts, in English, are in pyproject.toml."""

import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_every_import_contract_is_kept() -> None:
    linter = Path(sys.executable).with_name("lint-imports")
    told = subprocess.run(
        [linter, "--config", "pyproject.toml", "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert told.returncode == 0, told.stdout + told.stderr


def test_every_room_is_under_the_contracts_and_in_the_package() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]
    rooms = {path.parent.name for path in ROOT.glob("*/__init__.py")} - {"tests", "bench", "examples"}
    assert set(project["importlinter"]["root_packages"]) == rooms
    assert set(project["hatch"]["build"]["targets"]["wheel"]["packages"]) == rooms
    assert rooms < set(project["mypy"]["files"])
