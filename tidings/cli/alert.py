"""`tidings alert …`: for authors of alert programs. Only what reads history needs a broker."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from tidings.cli.alert_new import new
from tidings.cli.failures import Failed, Wrong, in_one_line
from tidings.cli.log_of import data_option, kafka_settings, read_log
from tidings.cli.times import Time, shown

if TYPE_CHECKING:
    from tidings.alert_history import Past
    from topics.read import HistoryReader
    from wrapper.alert_file import Alert
    from wrapper.rehearsal import Said

F = TypeVar("F", bound=Callable[..., Any])
FILE = click.Path(path_type=Path, exists=True, dir_okay=False)
INTERPRETERS = {".py": "python3", ".js": "node", ".mjs": "node", ".sh": "sh", ".rb": "ruby", ".pl": "perl"}


@click.group()
def alert() -> None:
    """Write, test and try out alert programs."""


alert.add_command(new)


@alert.command("test")
@click.argument("program")
@click.argument("scenarios", metavar="SCENARIO...", nargs=-1, required=True, type=FILE)
@click.option("--answer-s", type=float, default=10.0, show_default=True, help="How long a line may take.")
@click.option("--kill-each", is_flag=True, help="Play each once more, with a kill -9 and a new start after every line.")
@click.option("--update", is_flag=True, help="Write what is said into SCENARIO where it expects something else.")
def test(program: str, scenarios: tuple[Path, ...], answer_s: float, *, kill_each: bool, update: bool) -> int:
    """Play SCENARIO files against PROGRAM, without a broker, and show what differs.

    PROGRAM is an alert's file (alerts.toml, or alerts.toml:NAME), a script, or a command in quotes. The format of
    scenarios: docs/alerts.md.
    """
    from wrapper.child import CannotStart  # noqa: PLC0415 - `--help` is to be quick
    from wrapper.comparing import play, updated  # noqa: PLC0415
    from wrapper.scenario import ScenarioError, read  # noqa: PLC0415

    faults = 0
    for path, killing in [(p, k) for p in scenarios for k in ((False, True) if kill_each else (False,))]:
        alert = program_of(program)
        try:
            scenario = read(path.read_text(), alert.name)
            named = {"name": scenario.alert, "entities": list(scenario.entities)}
            alert = alert.model_copy(update=named)
            outcome = play(alert, scenario, answer_s=answer_s, kill_each=killing)
            if update and outcome.faults and outcome.whole and not killing:
                path.write_text(updated(path.read_text(), scenario, outcome.heard))
                click.echo(f"{path}: updated")
                scenario = read(path.read_text(), alert.name)
                outcome = play(alert, scenario, answer_s=answer_s)
        except (ScenarioError, UnicodeDecodeError) as error:
            raise Wrong(f"{path}: {error}") from error
        except CannotStart as error:
            raise Failed(str(error)) from error
        faults += outcome.faults
        verdict = f"differences: {outcome.faults}" if outcome.faults else f"as expected, messages: {outcome.said}"
        click.echo(f"{path}{', killed after every line' if killing else ''}: {verdict}")
        if outcome.faults:
            click.echo(outcome.text)
    return 1 if faults else 0


def _of_history(command: F) -> F:
    """What `record` and `replay` have in common."""
    for option in (
        data_option,
        click.option("--entity", metavar="TYPE/ID", help="Of the entities only this one."),
        click.option("--until", type=Time(), help="Before this time.  [default: now]"),
        click.option("--since", type=Time(), required=True, help="From this time on: RFC 3339, or how long ago (5m)."),
        click.option("--watch", metavar="TYPES", help="Entity types, separated by commas.  [default: the file's]"),
        click.option("--name", help="The alert's name, by which its configs are found.  [default: the file's]"),
        click.argument("program"),
    ):
        command = option(command)
    return command


@alert.command()
@_of_history
def replay(program: str, data: Path, since: int, until: int | None, **chosen: str | None) -> int:
    """Run history through PROGRAM and show what it would have said: `+` before what was not said then, `-` before what
    was said then alone. Nothing is written.

    PROGRAM is as for `test`.
    """
    from tidings.alert_history import rehearse, said  # noqa: PLC0415
    from topics.json_text import joined  # noqa: PLC0415
    from wrapper.child import CannotStart  # noqa: PLC0415
    from wrapper.rehearsal import Broken  # noqa: PLC0415

    upto = until or Time().convert("0s", None, None)
    alert, found = _history(program, data, since, until, **chosen)
    try:
        heard = rehearse(alert, found, upto)
    except (CannotStart, Broken) as error:
        raise Failed(str(error)) from error

    def line(one: Said) -> str:
        told = {
            n: t for n, t in one.members.items() if n not in ("metric", "kind") and t not in ("null", '""', "false")
        }
        return f"{shown(one.now)} {'fault ' if one.fault else ''}{joined(told)}"

    said_now, said_then = Counter(map(line, heard)), Counter(line(one) for one in said(found))
    marked = [
        (text, mark)
        for mark, lines in (("-", said_then - said_now), (" ", said_then & said_now), ("+", said_now - said_then))
        for text in lines.elements()
    ]
    for text, mark in sorted(marked, key=lambda pair: pair[0].partition(" ")[0]):
        click.echo(f"{mark} {text}")
    click.echo(f"{len(found.changes)} changes, {len(heard)} messages", err=True)
    return 1 if any(one.fault for one in heard) else 0


@alert.command()
@_of_history
def record(program: str, data: Path, since: int, until: int | None, **chosen: str | None) -> None:
    """Make a scenario out of history: what the alert was given, and what it said. Printed; redirect it into a file.

    PROGRAM is as for `test`. It holds what the log holds: look for what is private before you share it.
    """
    from tidings.alert_history import scenario_of  # noqa: PLC0415

    alert, found = _history(program, data, since, until, **chosen)
    if found.shards > 1:
        raise Wrong(f"{alert.name} runs in {found.shards} shards, and a scenario is of one program: see `replay`")
    for line in scenario_of(alert, found, shown(found.since)):
        click.echo(line)


def _history(
    program: str, data: Path, since: int, until: int | None, *, name: str | None, watch: str | None, entity: str | None
) -> tuple[Alert, Past]:
    from tidings.alert_history import past  # noqa: PLC0415
    from topics.selection import EntityName  # noqa: PLC0415

    kind, _, id_ = (entity or "").partition("/")
    if entity is not None and not (kind and id_):
        raise Wrong("--entity names a type and an id: vm/17")
    if until is not None and until <= since:
        raise Wrong("--until lies before --since")
    only = EntityName(kind, id_) if entity is not None else None
    alert = program_of(program)
    types = watch.split(",") if watch else alert.entities or ([kind] if kind else [])
    alert = alert.model_copy(update={"name": name or alert.name, "entities": types})

    async def work(reader: HistoryReader) -> Past:
        if unknown := [t for t in types if entity_topic(t) not in reader.topics]:
            raise Wrong(f"there is no entity type {unknown[0]!r}")
        found = await past(reader, alert, since, until, only)
        if not any(change.kind == "config" for change in found.snapshot + found.changes):
            raise Wrong(f"there was no config with the name {alert.name!r}: see --name")
        return found

    with in_one_line():
        from topics.catalogue import entity_topic  # noqa: PLC0415

        return alert, read_log(kafka_settings(data), work)


def program_of(name: str) -> Alert:
    """The alert that a word on the command line names. Wrong."""
    import shlex  # noqa: PLC0415

    from wrapper.alert_file import Alert, AlertFileError, read  # noqa: PLC0415

    path, _, wanted = name.partition(":")
    if path.endswith(".toml"):
        try:
            found = [a for a in read(Path(path)) if wanted in ("", a.name)]
        except AlertFileError as error:
            raise Wrong(str(error)) from error
        if len(found) != 1:
            raise Wrong(f"{path}: there are {len(found)} such alerts; name one: {path}:NAME")
        return found[0]
    file = Path(name)
    if not file.exists():
        return Alert(name="alert", run=shlex.split(name) or [name], cwd=Path.cwd())
    interpreter = INTERPRETERS.get(file.suffix)
    own = str(file.resolve())
    if file.suffix == ".go":
        raise Wrong(f"{file}: build it first (go build -o {file.stem} {file.name}), and name what came out")
    run = [interpreter, own] if interpreter else [own]
    return Alert(name=file.stem, run=run, cwd=file.resolve().parent)
