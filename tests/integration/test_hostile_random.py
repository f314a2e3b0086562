"""Small valid images, harmed at random: a bounded run with the tests, a long one by `make fuzz`.

SNF_FUZZ_SEED repeats a run, SNF_FUZZ_SECONDS makes it as long. Needs root.
"""

import itertools
import os
import random
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from hostile import arena
from hostile.arena import Arena
from hostile.mutation import make_attack

SECONDS = float(os.environ.get("SNF_FUZZ_SECONDS") or 0)
SEED = int(os.environ.get("SNF_FUZZ_SEED") or (random.randrange(10**9) if SECONDS else 124075652))
"""A long run has one of its own; with the tests it is the same each time, so that a change that
is judged by them is not judged by chance."""
ROUNDS = 10
"""Images in each arena when no time is given."""

pytestmark = pytest.mark.usefixtures("root")


def test_random_harm_ends_well_or_in_one_line(
    arenas: list[Arena], capsys: pytest.CaptureFixture[str]
) -> None:
    with capsys.disabled():
        print(f"\nSNF_FUZZ_SEED={SEED}", flush=True)
    until = time.monotonic() + SECONDS

    def play(index: int) -> list[str]:
        """Seeds of this arena, one after the other; its number keeps it from the others'."""
        for at in itertools.count():
            if time.monotonic() >= until if SECONDS else at == ROUNDS:
                return []
            attack = make_attack(SEED + at * len(arenas) + index)
            verdict = arenas[index].meet(attack)
            if problems := arena.judge(attack, verdict):
                return [attack.name, attack.what, *problems, verdict.outcome.log[-4000:]]
        return []

    with ThreadPoolExecutor(len(arenas)) as pool:
        found = [line for lines in pool.map(play, range(len(arenas))) for line in lines]
    assert not found, "\n".join([f"SNF_FUZZ_SEED={SEED}", *found])
