"""JSON Schemas of types, for the two documents: what checks a request is what describes it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from pydantic import TypeAdapter
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue

PLACE = "#/components/schemas/{model}"


class _Plain(GenerateJsonSchema):
    """Without the titles that pydantic makes of names: the names stand there already."""

    def field_title_should_be_set(self, schema: Any) -> bool:  # noqa: ARG002 - pydantic asks with it
        return False

    def get_title_from_name(self, name: str) -> str:
        return name


def schemas(types: Iterable[Any]) -> tuple[dict[Any, JsonSchemaValue], dict[str, Any]]:
    """Each type's schema, and the schemas that these refer to, by name."""
    wanted = list(dict.fromkeys(types))
    adapters = [(number, "validation", TypeAdapter[Any](t)) for number, t in enumerate(wanted)]
    made, rest = TypeAdapter.json_schemas(adapters, ref_template=PLACE, schema_generator=_Plain)  # type: ignore[arg-type]
    return {t: made[number, "validation"] for number, t in enumerate(wanted)}, rest.get("$defs", {})
