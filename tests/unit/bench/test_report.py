"""Figures, their documents and the table."""

import json
import sys
from pathlib import Path

import pytest

from bench.__main__ import choose, run_all
from bench.benchmark import Benchmark, Figure, find_benchmarks, run_benchmark
from bench.report import describe_machine, make_document, make_table, write_document
from snf_ganeti.errors import InputError, NodeError

COPY = Benchmark("copy", "s", 1.2, "qemu-img convert", lambda: ([3, 1, 2.4], [9, 2, 1]))
MEMORY = Benchmark("host-memory", "MB", 1.0, "the limit", lambda: ([61.5], [60]))
KEYS = ["name", "unit", "ours", "peer", "peer_name", "ratio", "goal", "holds", "runs", "machine"]


def test_figure_compares_medians() -> None:
    figure = run_benchmark(COPY)
    assert (figure.ours, figure.peer, figure.ratio) == (2.4, 2, 1.2)
    assert figure.holds


def test_figure_above_its_goal_does_not_hold() -> None:
    assert not run_benchmark(MEMORY).holds


def test_document_has_the_keys_of_the_contract(tmp_path: Path) -> None:
    path = write_document(run_benchmark(COPY), tmp_path / "new", "2 CPUs")
    document = json.loads(path.read_text())
    assert path.name == "copy.json"
    assert list(document) == KEYS
    assert document["runs"] == {"ours": [3, 1, 2.4], "peer": [9, 2, 1]}
    assert document["holds"] is True
    assert [each.name for each in path.parent.iterdir()] == ["copy.json"]


def test_table_is_aligned() -> None:
    table = make_table([run_benchmark(COPY), run_benchmark(MEMORY)])
    assert table.splitlines() == [
        "benchmark    ours     peer                     ratio  goal",
        "copy         2.4 s    2 s    qemu-img convert  1.200  ≤ 1.2  holds",
        "host-memory  61.5 MB  60 MB  the limit         1.025  ≤ 1    missed",
    ]


def test_table_of_nothing_is_its_head() -> None:
    assert make_table([]).startswith("benchmark")


def test_machine_is_described() -> None:
    text = describe_machine("processor: 0\nmodel name\t: Fast CPU\n", "MemTotal:  8388608 kB\n")
    assert "(Fast CPU), 8.0 GiB, Linux " in text


def test_name_of_no_benchmark_is_refused() -> None:
    assert choose([COPY, MEMORY], []) == [COPY, MEMORY]
    assert choose([COPY, MEMORY], ["host-memory"]) == [MEMORY]
    with pytest.raises(InputError, match="no benchmark is named cpoy; there are: copy"):
        choose([COPY], ["cpoy"])


def test_failure_does_not_stop_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> tuple[list[float], list[float]]:
        raise NodeError("virt-resize is not installed")

    monkeypatch.setattr("bench.__main__.FOLDER", tmp_path)
    broken = Benchmark("deploy", "s", 0.15, "virt-resize", fail)
    figures, failed = run_all([broken, COPY], "here")
    assert failed == ["deploy"]
    assert figures == [Figure(COPY, (3, 1, 2.4), (9, 2, 1))]
    document = json.loads((tmp_path / "copy.json").read_text())
    assert document == json.loads(json.dumps(make_document(figures[0], "here")))


def test_benchmarks_are_found_by_their_constant(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "some_benchmarks"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "helper.py").write_text("VALUE = 1\n")
    (package / "fast.py").write_text(
        "from bench.benchmark import Benchmark\n"
        "BENCHMARK = Benchmark('fast', 's', 1, 'slow', lambda: ([1], [2]))\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    assert [each.name for each in find_benchmarks("some_benchmarks")] == ["fast"]
    for name in [name for name in sys.modules if name.startswith("some_benchmarks")]:
        monkeypatch.delitem(sys.modules, name)
