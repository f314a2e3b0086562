"""The audit lines that a proxy writes while somebody reads them."""

from testbed.console import parse_audit

LOG = 'INFO: listening\n{"session": "a"}\n{"session": "b"}\n'


def test_every_line_of_json_is_found() -> None:
    assert parse_audit(LOG) == [{"session": "a"}, {"session": "b"}]


def test_a_line_that_is_half_written_comes_later() -> None:
    for at in range(len(LOG)):
        assert parse_audit(LOG[:at]) == parse_audit(LOG)[: LOG[:at].count("}\n")]


def test_an_empty_log_has_none() -> None:
    assert parse_audit("") == []
