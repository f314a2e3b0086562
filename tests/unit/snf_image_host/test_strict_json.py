"""JSON from users: what is taken, and what is refused without quoting it."""

import json
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snf_image_host.os_parameters.strict_json import parse_json

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=8,
)


@given(values)
def test_json_is_what_json_is(value: Any) -> None:
    assert parse_json(json.dumps(value), limit=10**6) == value


@given(st.text(max_size=50))
def test_any_text_is_a_value_or_refused(text: str) -> None:
    try:
        parse_json(text, limit=1000)
    except ValueError as error:
        assert str(error)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "not valid JSON: Expecting value at line 1, column 1"),
        ("{'s3cr3t': 1}", "not valid JSON: .* at line 1, column 2"),
        ('{"s3cr3t": 1, "s3cr3t": 2}', "an object has the same key twice"),
        ('[{"a": {"s3cr3t": 1, "s3cr3t": 1}}]', "an object has the same key twice"),
        ("[NaN]", "NaN is not JSON"),
        ("-Infinity", "-Infinity is not JSON"),
        ("[" * 100_000, "nested too deeply"),
        ("9" * (sys.get_int_max_str_digits() + 1), "digits"),
        (" " * 200_001, "longer than 200000 characters"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_what_is_refused_is_not_quoted(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason) as caught:
        parse_json(text, limit=200_000)
    assert "s3cr3t" not in str(caught.value)
