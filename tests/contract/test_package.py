"""The packages hold what the tree holds, and depend on what it imports."""

import ast
import fnmatch
import re
import subprocess
import sys
import tomllib
from email import message_from_string
from email.message import Message
from pathlib import Path

ROOT = Path(__file__).parents[2]
DEBIAN = ROOT / "debian"

PROVIDERS = {
    "aiormq": "python3-aiormq",
    "cryptography": "python3-cryptography",
    "ganeti": "ganeti",
    "h11": "python3-h11",
    "jsonschema": "python3-jsonschema",
    "nbd": "python3-libnbd",
    "pamqp": "python3-pamqp",
    "prometheus_client": "python3-prometheus-client",
    "rados": "python3-rados",
    "rbd": "python3-rbd",
    "redis": "python3-redis",
    "dns": "python3-dnspython",
    "nftables": "python3-nftables",
    "numpy": "python3-numpy",
    "requests": "python3-requests",
    "seccomp": "python3-seccomp",
    "urllib3": "python3-urllib3",
    "websockets": "python3-websockets",
    "yarl": "python3-yarl",
}
"""Debian's package of each module that is neither Python's nor ours."""


def read_stanzas() -> dict[str, Message]:
    """The binary packages of debian/control by name."""
    stanzas = map(message_from_string, (DEBIAN / "control").read_text().split("\n\n"))
    return {stanza["Package"]: stanza for stanza in stanzas if stanza["Package"]}


def find_tracked() -> list[Path]:
    """What git would commit, from the root of the tree; what was deleted is left out."""
    listed = subprocess.run(
        ["git", "-c", f"safe.directory={ROOT}", "-C", str(ROOT), "ls-files", "-z"],
        check=True,
        capture_output=True,
        text=True,
    )
    return [Path(name) for name in listed.stdout.split("\0") if name and (ROOT / name).exists()]


def find_components() -> dict[str, list[Path]]:
    """Component → its files. A component is a folder that holds a Python package of its name,
    or the library's."""
    files: dict[str, list[Path]] = {}
    for path in find_tracked():
        if path.parts[0] in read_stanzas() or re.match(r"(snf|ext)-", path.parts[0]):
            files.setdefault(path.parts[0], []).append(path)
    return files


def make_import_name(component: str) -> str:
    return "snf_ganeti" if component == "snf-ganeti-common" else component.replace("-", "_")


def read_installed(component: str) -> list[str]:
    """The sources, files or folders or patterns, that debhelper installs for a package."""
    lists = (DEBIAN / f"{component}.{kind}" for kind in ("install", "manpages"))
    lines = [line for path in lists if path.exists() for line in path.read_text().splitlines()]
    return [line.split()[0] for line in lines if line and not line.startswith("#")]


def parse_depends(stanza: Message) -> dict[str, str]:
    """Package → its version constraint, empty without one. What is recommended counts: it is
    imported where the program goes on without it."""
    listed = f"{stanza['Depends']},{stanza.get('Recommends', '')}"
    items = (item.strip() for item in listed.split(",") if item.strip())
    names = (item.partition(" ") for item in items)
    return {name: constraint for name, _, constraint in names}


def test_version_is_the_same_everywhere() -> None:
    changelog = re.match(r"snf-ganeti \(([^)]+)\)", (DEBIAN / "changelog").read_text())
    news = re.search(r"^## (\S+)", (ROOT / "NEWS.md").read_text(), re.MULTILINE)
    assert changelog and news
    assert changelog[1] == news[1]


def test_each_component_has_a_package_and_each_package_a_component() -> None:
    assert set(find_components()) == set(read_stanzas())


def test_each_component_is_checked_and_tested() -> None:
    tools = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]
    makefile = (ROOT / "Makefile").read_text()
    for component in find_components():
        assert f"{component}/{make_import_name(component)}" in makefile
        assert component in tools["pytest"]["ini_options"]["pythonpath"]
        assert component in tools["mypy"]["mypy_path"].split(":")
        assert component in tools["ruff"]["src"]


def test_each_file_of_a_component_is_installed() -> None:
    forgotten = [
        str(path)
        for component, paths in find_components().items()
        for path in paths
        if not any(
            path.is_relative_to(source) or fnmatch.fnmatchcase(str(path), source)
            for source in read_installed(component)
        )
    ]
    assert not forgotten, "name these in debian/<component>.install or .manpages"


def test_each_import_is_a_dependency() -> None:
    stanzas = read_stanzas()
    owners = {make_import_name(component): component for component in stanzas}
    for component, paths in find_components().items():
        depends = parse_depends(stanzas[component])
        for module in sorted(find_imports(paths) - {make_import_name(component)}):
            if module in owners:
                assert depends[owners[module]] == "(= ${binary:Version})", (component, module)
            else:
                assert PROVIDERS[module] in depends, (component, module)


def find_imports(paths: list[Path]) -> set[str]:
    """The top-level modules that Python files import, Python's own left out."""
    modules: set[str] = set()
    for path in paths:
        if path.suffix != ".py" and not is_python_script(path):
            continue
        for node in ast.walk(ast.parse((ROOT / path).read_text())):
            if isinstance(node, ast.Import):
                modules |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                modules.add(node.module.partition(".")[0])
    return modules - sys.stdlib_module_names


def is_python_script(path: Path) -> bool:
    with (ROOT / path).open("rb") as file:
        return b"python3" in file.readline(100)


def test_manual_pages_are_without_warnings() -> None:
    for page in (path for path in find_tracked() if path.parent.name == "man"):
        shown = subprocess.run(
            ["man", "--warnings", "--encoding=UTF-8", "--local-file", "--ditroff", str(page)],
            cwd=ROOT,
            env={"LC_ALL": "C.UTF-8", "MANWIDTH": "80", "PATH": "/usr/bin:/bin"},
            capture_output=True,
            text=True,
        )
        assert (shown.returncode, shown.stderr) == (0, ""), page
