"""Lines on stderr, and what the journal takes of them."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.spawn
LIBRARY = Path(sys.modules["snf_ganeti"].__path__[0]).parent
CODE = """
import logging
from snf_ganeti import log
from snf_ganeti.errors import NodeError, run_main
log.configure("test")
def main():
    logging.info("one")
    logging.warning("two\\nlines")
    logging.error("three")
    raise NodeError("four")
run_main(main)
"""


def run_logger(tmp_path: Path, stream: str) -> str:
    """What a program writes to its stderr, a file; stream: of the journal, {} for that file."""
    path = tmp_path / "stderr"
    with path.open("w") as stderr:
        status = os.fstat(stderr.fileno())
        env = {"PYTHONPATH": str(LIBRARY),
               "JOURNAL_STREAM": stream.format(f"{status.st_dev}:{status.st_ino}")}  # fmt: skip
        subprocess.run([sys.executable, "-c", CODE], env=env, stderr=stderr, timeout=30)
    return path.read_text()


def test_the_journal_is_told_how_grave_each_line_is(tmp_path: Path) -> None:
    expected = "<6>one\n<4>two\n<4>lines\n<3>three\n<3>error: four\n"
    assert run_logger(tmp_path, "{}") == expected


@pytest.mark.parametrize("stream", ["", "8:1"])
def test_anybody_else_reads_plain_lines(tmp_path: Path, stream: str) -> None:
    assert run_logger(tmp_path, stream) == "one\ntwo\nlines\nthree\nerror: four\n"
