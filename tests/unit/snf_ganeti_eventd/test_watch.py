"""Notices of the kernel."""

import select
import shutil
from pathlib import Path

from snf_ganeti_eventd.jobs.watch import Changes, Watcher
from unit.snf_ganeti_eventd.jobs import Queue, make_op


def test_jobs_are_noticed_once_and_temporary_files_not(tmp_path: Path) -> None:
    files = Queue(tmp_path)
    watcher = Watcher(tmp_path)
    assert watcher.read() == Changes()
    for job_id in (2, 1, 2):
        files.put(job_id, make_op("OP_X"))
    assert select.select([watcher], [], [], 5)[0]
    assert watcher.read() == Changes(jobs=(1, 2))
    files.archive(1)
    assert watcher.read() == Changes()
    watcher.close()


def test_a_new_master_is_noticed(tmp_path: Path) -> None:
    Queue(tmp_path)
    watcher = Watcher(tmp_path)
    draft = tmp_path / "ssconf_master_node.new"
    draft.write_text("node2\n")
    draft.rename(tmp_path / "ssconf_master_node")
    assert watcher.read() == Changes(role=True)


def test_a_queue_is_watched_from_when_it_exists(tmp_path: Path) -> None:
    watcher = Watcher(tmp_path)
    files = Queue(tmp_path)
    assert watcher.read().must_rescan
    files.put(1, make_op("OP_X"))
    assert watcher.read().jobs == (1,)
    shutil.rmtree(files.folder)
    watcher.read()
    files = Queue(tmp_path)
    assert watcher.read().must_rescan
    files.put(2, make_op("OP_X"))
    assert watcher.read().jobs == (2,)


def test_a_node_that_is_in_no_cluster_is_watched_later(tmp_path: Path) -> None:
    ganeti = tmp_path / "ganeti"
    watcher = Watcher(ganeti)
    assert not watcher.refresh()
    files = Queue(ganeti)
    assert watcher.refresh()
    files.put(1, make_op("OP_X"))
    assert watcher.read().jobs == (1,)


def test_an_overflow_asks_for_a_look_at_everything(tmp_path: Path) -> None:
    """The kernel's own queue of notices is filled, and its own overflow read."""
    files = Queue(tmp_path)
    watcher = Watcher(tmp_path)
    limit = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
    path = files.folder / "a", files.folder / "b"
    path[0].write_text("")
    for number in range(limit + 2):
        path[number % 2].rename(path[(number + 1) % 2])
    changes = watcher.read()
    assert changes.overflowed and changes.must_rescan and changes.role
