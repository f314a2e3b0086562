"""JSON from users: bounded, without duplicate keys, without what JSON does not have.

Errors are a ValueError whose text says what is wrong and never quotes the value, which may be
a secret.
"""

import json
from collections.abc import Callable
from typing import Any, NoReturn


def parse_json(
    text: str,
    *,
    limit: int,
    parse_int: Callable[[str], object] = int,
    parse_float: Callable[[str], object] = float,
) -> Any:
    """The value of a JSON text of up to `limit` characters. Raises ValueError."""
    if len(text) > limit:
        raise ValueError(f"it is longer than {limit} characters")
    try:
        return json.loads(
            text,
            object_pairs_hook=_make_object,
            parse_constant=_refuse_constant,
            parse_int=parse_int,
            parse_float=parse_float,
        )
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise ValueError(f"it is not valid JSON: {error.msg} at {where}") from None
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _make_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise ValueError("an object has the same key twice")
    return value


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")
