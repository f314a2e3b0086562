"""The corpus itself: large enough, and each of its attacks says what it attacks."""

import fnmatch
import re
from pathlib import Path

from hostile.attack import find_duplicates
from hostile.corpus import ATTACKS
from hostile.lies import LIES


def test_there_are_more_attacks_than_the_corpus_promises() -> None:
    images = sum(max(1, len(attack.tricks)) for attack in ATTACKS)
    assert images + len(LIES) >= 150
    assert not find_duplicates(ATTACKS)


def test_each_says_what_it_attacks() -> None:
    for attack in ATTACKS:
        assert attack.what and all(attack.tricks.values()), attack.name


def test_what_is_to_be_found_on_the_disk_is_of_a_deployment_that_succeeds() -> None:
    assert not [attack.name for attack in ATTACKS if attack.holds and attack.reason]


def test_what_the_documentation_names_is_there() -> None:
    root = Path(__file__).parents[3]
    rows = re.findall(r"^\|.*\| (.*) \|$", (root / "docs/hostile-images.md").read_text(), re.M)
    named = [name for row in rows for name in re.findall("`([^`]+)`", row)]
    known = [*LIES, *(attack.name for attack in ATTACKS)]
    assert len(named) > 30
    for name in named:
        assert (root / name).is_file() if "/" in name else fnmatch.filter(known, name), name
