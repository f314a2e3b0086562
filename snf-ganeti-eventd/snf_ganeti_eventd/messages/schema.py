"""The JSON Schemas of all messages, which are part of the package."""

import json
from collections.abc import Iterable, Mapping
from functools import cache
from importlib import resources
from typing import Any

from snf_ganeti.errors import SnfError
from snf_ganeti_eventd.messages.opcode import Kind


class SchemaError(SnfError):
    """A message that its schema does not allow: a bug, which must not reach a controller."""


def read_schema(kind: Kind) -> Mapping[str, Any]:
    """The schema of a kind of message, as shipped."""
    text = resources.files(__package__).joinpath(f"schemas/{kind}.json").read_text("utf-8")
    schema: Mapping[str, Any] = json.loads(text)
    return schema


def load(kinds: Iterable[Kind]) -> None:
    """Have the schemas of these kinds at hand, and their library, which takes its time."""
    for kind in kinds:
        _make_validator(kind)


def check_body(kind: Kind, body: Mapping[str, Any]) -> None:
    """Raises SchemaError, which names the place and never quotes the value."""
    for error in _make_validator(kind).iter_errors(body):
        place = "/".join(map(str, error.absolute_path)) or "the message"
        raise SchemaError(f"{place} of a {kind} event breaks the schema ({error.validator})")


@cache
def _make_validator(kind: Kind) -> Any:
    # Imported when needed: a program that sends one message need not wait for it.
    from jsonschema import Draft202012Validator

    return Draft202012Validator(read_schema(kind))
