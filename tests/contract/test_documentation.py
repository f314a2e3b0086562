"""What the README promises, and where its links lead."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")]


def find_links(page: Path) -> set[Path]:
    """The files that a page's relative links name."""
    targets = re.findall(r"\]\(([^)#\s]+)", page.read_text())
    return {(page.parent / target).resolve() for target in targets if "://" not in target}


def test_links_lead_to_files() -> None:
    broken = {(page.name, link) for page in PAGES for link in find_links(page) if not link.exists()}
    assert not broken


def test_each_document_is_in_the_index() -> None:
    index = ROOT / "docs/README.md"
    assert set(ROOT.glob("docs/**/*.md")) <= find_links(index) | {index}


def test_ci_runs_the_command_of_the_readme() -> None:
    # CI is root already, and need not have sudo.
    assert "\nsudo make test\n" in (ROOT / "README.md").read_text()
    *_, command = (ROOT / ".ci/run").read_text().splitlines()
    assert command == "exec make test"


def test_make_has_the_commands_that_the_pages_name() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    text = "".join(page.read_text() for page in PAGES)
    named = set(re.findall(r"(?:`|^)(?:sudo )?make ([a-z-]+)", text, re.MULTILINE))
    assert {"demo", "demo-down", "test", "check", "deb"} <= named <= targets
