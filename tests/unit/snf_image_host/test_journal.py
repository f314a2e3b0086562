"""What a run did, told as it happens and summed up."""

from collections.abc import Mapping
from typing import Any

import pytest

from snf_ganeti.errors import DeadlineError, InputError, Terminated
from snf_image_helper.protocol import Failed, RunResult, TaskEnd, TaskStart, Warned
from snf_image_host.journal import Journal, closing

Events = list[Mapping[str, Any]]


def name(events: Events) -> list[str]:
    return [str(event.get("subtype", event["type"])) for event in events]


def test_a_run_that_goes_well() -> None:
    events: Events = []
    with closing(Journal(events.append)) as journal:
        with journal.stage("copy"):
            journal.show_copied(1, 4)
        with journal.stage("helper"):
            journal.follow_helper(TaskStart("AddSwap"))
            journal.follow_helper(TaskEnd("AddSwap", "skipped", "no SWAP property", 0.5))
            journal.follow_helper(Warned(("odd fstab",)))
            journal.follow_helper(RunResult("ok", ""))
        journal.warn("odd property")
    assert name(events) == [
        *("image-copy-progress", "task-start", "task-end", "warning", "image-info"),
        "image-result",
    ]
    document = journal.make_document()
    seconds = [stage.pop("seconds") for stage in document["stages"]]
    assert all(each >= 0 for each in seconds)
    assert document == {
        "status": "ok",
        "reason": None,
        "stages": [{"name": "copy"}, {"name": "helper"}],
        "tasks": [
            {"task": "AddSwap", "result": "skipped", "reason": "no SWAP property", "seconds": 0.5}
        ],
        "warnings": ["odd fstab", "odd property"],
    }


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (InputError("no such image", hint="give another"), "no such image; give another"),
        (DeadlineError("the helper", 3), "the helper took longer than 3 s"),
        (Terminated(15), "it was ended by signal 15"),
        (ZeroDivisionError("oops"), "internal error: ZeroDivisionError: oops"),
    ],
)
def test_a_run_that_fails_says_why_once_and_last(error: BaseException, reason: str) -> None:
    events: Events = []
    journal = Journal(events.append)
    with pytest.raises(type(error)), closing(journal), closing(journal), journal.stage("open"):
        raise error
    assert name(events) == ["image-error", "image-result"]
    assert events[0]["messages"] == [reason]
    assert (events[1]["status"], events[1]["reason"]) == ("error", reason)
    document = journal.make_document()
    assert (document["status"], document["reason"]) == ("error", reason)
    assert [stage["name"] for stage in document["stages"]] == ["open"]


def test_a_helpers_result_is_not_the_runs() -> None:
    events: Events = []
    journal = Journal(events.append)
    with pytest.raises(InputError), closing(journal):
        journal.follow_helper(Failed(("x",)))
        journal.follow_helper(RunResult("error", "AddSwap: no room"))
        raise InputError("AddSwap: no room")
    assert name(events) == ["error", "image-error", "image-result"]


def test_who_follows_later_gets_what_comes_later() -> None:
    early: Events = []
    late: Events = []
    journal = Journal(early.append)
    journal.tell("one")
    journal.follow(late.append)
    journal.tell("two")
    assert (len(early), len(late)) == (2, 1)
