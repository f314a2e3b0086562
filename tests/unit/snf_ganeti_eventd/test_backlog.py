"""Jobs that wait."""

from snf_ganeti_eventd.publication.backlog import Backlog


def test_jobs_keep_their_order() -> None:
    backlog = Backlog()
    backlog.add([3, 1, 2, 1])
    taken = backlog.take(2)
    assert list(taken) == [3, 1]
    backlog.add([1, 4])
    backlog.put_back(taken)
    assert list(backlog.take(9)) == [3, 1, 2, 4]
    assert not backlog.has_work and backlog.oldest_age == 0


def test_a_job_that_is_on_its_way_is_left() -> None:
    backlog = Backlog()
    backlog.add([1, 2, 3])
    assert list(backlog.take(2, {1: 0.0})) == [2, 3]
    assert list(backlog.take(2)) == [1]


def test_the_age_is_that_of_the_first() -> None:
    backlog = Backlog()
    backlog.add([1])
    backlog.put_back({2: 0.0})
    assert backlog.oldest_age > 1


def test_a_parked_job_waits_for_its_key() -> None:
    backlog = Backlog()
    assert backlog.park("a", 1) is True
    assert backlog.park("a", 2) is False
    assert backlog.park("b", 1) is True
    assert (backlog.parked, len(backlog), backlog.has_work) == (2, 2, False)
    backlog.probe()
    assert list(backlog.take(9)) == [1]
    backlog.unpark("a")
    assert list(backlog.take(9)) == [1, 2]
    assert backlog.is_parked(1) and not backlog.is_parked(2)
