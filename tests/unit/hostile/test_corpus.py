"""The corpus itself: large enough, and each of its attacks says what it attacks."""

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
