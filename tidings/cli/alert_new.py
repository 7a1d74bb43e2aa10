"""`tidings alert new`: a program that works, its scenario, its test and the file that runs it."""

from __future__ import annotations

import json
import re
from importlib.resources import files
from pathlib import Path

import click

from tidings.cli.failures import Failed

# language -> the program's file, how it is run, how it is built
LANGUAGES = {
    "python": ("alert.py", ["python3", "alert.py"], ""),
    "node": ("alert.mjs", ["node", "alert.mjs"], ""),
    "go": ("alert.go", ["./alert"], "go build -o alert alert.go\n"),
    "shell": ("alert.sh", ["./alert.sh"], ""),
}


@click.command("new")
@click.argument("language", type=click.Choice(list(LANGUAGES)))
@click.argument("directory", type=click.Path(path_type=Path, file_okay=False))
def new(language: str, directory: Path) -> None:
    """Begin an alert program in DIRECTORY: it works, and `DIRECTORY/test` proves it."""
    program, run, build = LANGUAGES[language]
    name = re.sub(r"[^\w.-]", "-", directory.resolve().name)
    if directory.exists() and any(directory.iterdir()):
        raise Failed(f"{directory} is not empty")
    directory.mkdir(parents=True, exist_ok=True)
    for file in (program, "scenario.jsonl", "alerts.toml", "test"):
        text = (files("tidings") / "scaffold" / file).read_text()
        if file != program:
            text = text.replace("NAME", name).replace("RUN", json.dumps(run)).replace("BUILD", build)
        (directory / file).write_text(text)
    for file in {"test", program} & {"test", "alert.sh", "alert.py"}:
        (directory / file).chmod(0o755)
    click.echo(f"{directory}/{program} is the program, {directory}/scenario.jsonl what it has to say.")
    click.echo(f"Try it: {directory}/test")
