"""The master of a cluster of three fails over. Needs root."""

import contextlib
import itertools
import os
from pathlib import Path

from testbed.bed import open_bed
from testbed.deadline import wait_for
from testbed.event_story import (
    DELAY,
    SECONDS,
    read_truth,
    submit,
    wait_for_truth,
)
from testbed.events import (
    open_consumer,
    open_daemon,
    write_settings,
)
from testbed.ganeti import add_node, create_cluster, fail_over_master
from testbed.rabbitmq import open_brokers
from testbed.roots import BUILD


def test_no_event_is_lost_when_the_master_fails_over(root: None, tmp_path: Path) -> None:
    """What the old master's daemon had not published, the new one's does."""
    debs = sorted((BUILD / "deb").glob("*.deb"))
    with contextlib.ExitStack() as stack:
        bed = stack.enter_context(open_bed(f"failover-{os.getpid()}", debs=debs))
        cluster = create_cluster(bed)
        nodes = [cluster.node, add_node(cluster, 2), add_node(cluster, 3)]
        (broker,) = stack.enter_context(open_brokers(bed))
        consumer = stack.enter_context(open_consumer(bed, [broker]))
        daemons = []
        for index, node in enumerate(nodes[:2], 1):
            write_settings(node, [broker.address])
            log = tmp_path / f"daemon{index}.log"
            daemons.append(stack.enter_context(open_daemon(node, log)))
            daemons[-1].start()
        old, new = daemons
        submit(cluster.node, [[DELAY]] * 3)
        wait_for_truth(consumer, cluster.node)
        assert new.read_metrics()["published_total"] == 0

        old.kill()
        submit(cluster.node, [[DELAY]] * 3)
        unseen = read_truth(cluster.node) - consumer.finals
        assert len(unseen) == 3
        known_before = read_truth(cluster.node)
        cluster = fail_over_master(cluster, 2)
        old.start()
        submit(cluster.node, [[DELAY]] * 2)

        def read_all() -> set[tuple[int, int, str, str]]:
            """Node 2 has no jobs from before it joined."""
            return known_before | read_truth(cluster.node)

        wait_for("every final state", lambda: consumer.finals >= read_all(), SECONDS)
        assert consumer.finals == read_all()
        assert unseen <= consumer.finals
        wait_for("the old master", lambda: old.read_metrics()["master"] == 0, SECONDS)
        assert old.read_metrics()["published_total"] == 0
        by_id = itertools.groupby(sorted(consumer.events, key=lambda each: each.id),
                                  key=lambda each: each.id)  # fmt: skip
        assert all(len({event.fact for event in events}) == 1 for _, events in by_id)
