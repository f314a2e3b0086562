"""What is kept of a console that a hostile guest may write."""

import pytest

from snf_image_host.helper_vm.console import Console


@pytest.mark.parametrize(
    ("printed", "last"),
    [
        (b"", "nothing"),
        (b"one\r\ntwo\r\n", "two"),
        (b"Error: it broke\n[    4.6] Call Trace:\n[    4.7]  panic+0x1\n", "Error: it broke"),
        (b"[    4.7] Kernel panic\n", "[ 4.7] Kernel panic"),
        (b"\x1b[2J\x1b[31mred\x07\x00 text\n\n\n", "red text"),
        (b"\xff\xfe bad bytes\n", "\ufffd\ufffd bad bytes"),
    ],
)
def test_the_last_line_is_clean_and_a_program_s(printed: bytes, last: str) -> None:
    console = Console()
    console.keep(printed)
    assert console.last_line == last


def test_lines_that_come_in_pieces() -> None:
    console = Console()
    for byte in b"hello world\n":
        console.keep(bytes([byte]))
    assert console.last_line == "hello world"


def test_a_flood_keeps_its_end() -> None:
    console = Console()
    for _ in range(100):
        console.keep(b"x" * 10_000)
    console.keep(b"\nthe end\n")
    assert console.last_line == "the end"
