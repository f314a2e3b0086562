"""What a person sees of a deployment on a terminal."""

import io
from collections.abc import Mapping
from typing import Any

import pytest

from snf_image_host.monitor import make_copy_progress, make_error, make_info
from snf_image_host.progress import ProgressBar, draw

MIB = 1 << 20


@pytest.mark.parametrize(
    ("event", "line"),
    [
        (make_copy_progress(0, 200 * MIB, 1.0), f"copy [{'-' * 30}]   0 %  0 MiB"),
        (
            make_copy_progress(100 * MIB, 200 * MIB, 1.0),
            f"copy [{'#' * 15}{'-' * 15}]  50 %  100 MiB",
        ),
        (make_copy_progress(200 * MIB, 200 * MIB, 1.0), f"copy [{'#' * 30}] 100 %  200 MiB"),
        (make_copy_progress(5 * MIB, 0, 1.0), "copy 5 MiB"),
        ({"type": "image-helper", "subtype": "task-start", "task": "AddSwap"}, "AddSwap …"),
        ({"type": "image-helper", "subtype": "warning", "messages": ["x"]}, "warning: x\n"),
        (make_info(["disk 0 holds the image already"], 1.0), "disk 0 holds the image already\n"),
        (make_error(["why"], 1.0), ""),
        ({"type": "image-result", "status": "ok", "reason": ""}, "done\n"),
        ({"type": "image-result", "status": "error", "reason": "why"}, ""),
    ],
)
def test_a_line_for_each_event(event: Mapping[str, Any], line: str) -> None:
    assert draw(event) == line


def test_each_line_is_drawn_over_the_last() -> None:
    terminal = io.StringIO()
    bar = ProgressBar(terminal)
    bar.send({"type": "image-helper", "subtype": "task-start", "task": "A"})
    bar.send({"type": "image-result", "status": "ok", "reason": ""})
    assert terminal.getvalue() == "\r\x1b[KA …\r\x1b[Kdone\n"
