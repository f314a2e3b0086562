"""Figures as JSON documents, one a benchmark, and as one table for people."""

import json
import os
import platform
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.benchmark import Figure

_HEAD = ("benchmark", "ours", "peer", "", "ratio", "goal", "")


def make_document(figure: Figure, machine: str) -> dict[str, Any]:
    """The keys are a contract: other programs follow the figures from one commit to the next."""
    return {
        "name": figure.benchmark.name,
        "unit": figure.benchmark.unit,
        "ours": figure.ours,
        "peer": figure.peer,
        "peer_name": figure.benchmark.peer_name,
        "ratio": figure.ratio,
        "goal": figure.benchmark.goal,
        "holds": figure.holds,
        "runs": {"ours": figure.runs_ours, "peer": figure.runs_peer},
        "machine": machine,
    }


def write_document(figure: Figure, folder: Path, machine: str) -> Path:
    """Write FOLDER/NAME.json, whole or not at all."""
    path = folder / f"{figure.benchmark.name}.json"
    folder.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(".draft")
    draft.write_text(json.dumps(make_document(figure, machine), indent=2) + "\n", "utf-8")
    draft.replace(path)
    return path


def make_table(figures: Sequence[Figure]) -> str:
    """A line a figure, under a head, columns aligned."""
    rows = [_HEAD, *map(_make_row, figures)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = (
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        for row in rows
    )
    return "\n".join(line.rstrip() for line in lines)


def _make_row(figure: Figure) -> tuple[str, ...]:
    benchmark = figure.benchmark
    return (
        benchmark.name,
        f"{figure.ours:.4g} {benchmark.unit}",
        f"{figure.peer:.4g} {benchmark.unit}",
        benchmark.peer_name,
        f"{figure.ratio:.3f}",
        f"≤ {benchmark.goal:g}",
        "holds" if figure.holds else "missed",
    )


def describe_machine(cpuinfo: str, meminfo: str) -> str:
    """Processor, memory and kernel of this machine, from /proc/cpuinfo and /proc/meminfo."""
    model = re.search(r"^model name\s*: (.*)$", cpuinfo, re.MULTILINE)
    memory = re.search(r"^MemTotal:\s*(\d+) kB$", meminfo, re.MULTILINE)
    return ", ".join(
        (
            f"{os.cpu_count()} CPUs ({model[1] if model else platform.machine()})",
            f"{int(memory[1]) / (1 << 20):.1f} GiB" if memory else "memory unknown",
            f"Linux {platform.release()}",
        )
    )
