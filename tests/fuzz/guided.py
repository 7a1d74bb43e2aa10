"""One target under atheris, until libFuzzer's own bounds end it: `python -m tests.fuzz.guided TARGET BOUNDS`.

atheris is no dependency of the project, as there are wheels for few machines: `make fuzz` installs it.
"""

from __future__ import annotations

import sys

import atheris

with atheris.instrument_imports(include=["api", "topics", "wrapper", "json", "tests.fuzz.targets"]):
    from tests.fuzz.targets import TARGETS


def main() -> None:
    """Ends the process."""
    target = TARGETS[sys.argv.pop(1)]
    atheris.Setup(sys.argv, target)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
