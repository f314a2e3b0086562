"""Every hostile image against the installed `snf-image deploy`. Needs root.

docs/hostile-images.md says what each barrier stops. The attacks are in tests/hostile.
"""

import queue
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from hostile import arena
from hostile.arena import Arena, Verdict
from hostile.corpus import BY_NAME

pytestmark = pytest.mark.usefixtures("root")


@pytest.fixture(scope="module")
def verdicts(
    request: pytest.FixtureRequest, arenas: list[Arena]
) -> Iterator[Mapping[str, "Future[Verdict]"]]:
    """Those of the attacks that this run wants: each arena takes the next one when it is free."""
    free: queue.Queue[Arena] = queue.Queue()
    for each in arenas:
        free.put(each)

    def meet(name: str) -> Verdict:
        taken = free.get()
        try:
            return taken.meet(BY_NAME[name])
        finally:
            free.put(taken)

    wanted = [
        str(item.callspec.params["name"])
        for item in request.session.items
        if isinstance(item, pytest.Function)
        and item.path == request.path
        and item.originalname == test_hostile_image.__name__
    ]
    with ThreadPoolExecutor(len(arenas)) as pool:
        try:
            yield {name: pool.submit(meet, name) for name in wanted}
        finally:
            pool.shutdown(cancel_futures=True)


@pytest.mark.parametrize("name", BY_NAME)
def test_hostile_image(name: str, verdicts: Mapping[str, "Future[Verdict]"]) -> None:
    """It ends within its deadline, well or with the one line; nothing is left behind."""
    attack = BY_NAME[name]
    verdict = verdicts[name].result()
    problems = arena.judge(attack, verdict)
    assert not problems, "\n".join(
        (
            *(attack.what, *problems),
            f"{verdict.seconds:.1f} s, {verdict.memory >> 20} MiB",
            verdict.outcome.log[-4000:],
        )
    )
