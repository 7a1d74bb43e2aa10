"""`tidings topics apply | list | show`: the catalogue, and how the cluster differs from it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from tidings.cli.failures import Wrong, in_one_line
from tidings.cli.log_of import data_option, kafka_settings

if TYPE_CHECKING:
    from topics.catalogue import Topic
    from topics.provision import Finding


@click.group()
def topics() -> None:
    """The topics that Tidings keeps its log in."""


@topics.command("apply")
@data_option
def apply_(data: Path) -> None:
    """Make what is missing, and set what differs from the catalogue. Safe to repeat."""
    with in_one_line():
        settings = kafka_settings(data)
        from topics import provision  # noqa: PLC0415 - loads a Kafka client

        for finding in provision.apply(settings.cluster, settings.catalogue, replication=settings.replication):
            if finding.made:
                click.echo(f"made     {_shape(finding.topic)}")
            elif finding.drift:
                click.echo(f"changed  {finding.topic.name}: {_drift(finding)}")
            else:
                click.echo(f"as is    {finding.topic.name}")


@topics.command("list")
@data_option
def list_(data: Path) -> None:
    """Every topic of the catalogue, and whether the cluster has it as declared. Changes nothing."""
    with in_one_line():
        for finding in _findings(data):
            state = "missing" if finding.made else f"differs: {_drift(finding)}" if finding.drift else "as declared"
            click.echo(f"{_shape(finding.topic):70} {state}")


@topics.command()
@click.argument("name")
@data_option
def show(name: str, data: Path) -> None:
    """One topic: its key, its events, its settings, and what differs on the cluster."""
    with in_one_line():
        found = {finding.topic.name: finding for finding in _findings(data)}
        if name not in found:
            raise Wrong(f"the catalogue has no topic {name!r}: it has {', '.join(found)}")
        finding, topic = found[name], found[name].topic
        click.echo(_shape(topic))
        click.echo(f"key: {topic.key}")
        click.echo(f"events: {', '.join(topic.events) or 'whatever could not be taken, as it was'}")
        for setting, value in topic.config.items():
            click.echo(f"  {setting} = {value}")
        click.echo(f"on the cluster: {'missing' if finding.made else _drift(finding) or 'as declared'}")


def _findings(data: Path) -> list[Finding]:
    settings = kafka_settings(data)
    from topics import provision  # noqa: PLC0415 - loads a Kafka client

    return provision.apply(settings.cluster, settings.catalogue, change=False)


def _shape(topic: Topic) -> str:
    if topic.compacted:
        kept = "compacted"
    else:
        kept = "for ever" if topic.keep_ms is None else f"{topic.keep_ms // 86_400_000} days"
    return f"{topic.name} ({topic.partitions} partition{'s' if topic.partitions > 1 else ''}, {kept})"


def _drift(finding: Finding) -> str:
    return ", ".join(f"{name} {is_ or 'unset'} → {shall}" for name, (is_, shall) in finding.drift.items())
