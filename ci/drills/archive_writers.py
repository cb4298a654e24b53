"""Archive writers drill: one writer at a time, and what happens to the others.

Of two servers on one archive the older one stops archiving, says so and goes on serving, and
nothing that it does afterwards reaches what the newer one has written. A store that cannot tell
them apart is used only when the operator promises that there is one.
"""

import shutil
import time

import archived
import scenarios
from archived import MIB, topic_pb2


def fenced(checks, place):
    """Of two servers on one archive the older one stops archiving, says so, and goes on serving."""
    store = place.moto()
    old = place.server(store, "old", prefix="fenced")
    log = old.start()
    topic = log.create("shared", 1)
    archived.fill(log, "shared", 1, 3 * MIB, place.seed)
    old.comlog("archive", "flush")
    new = place.server(store, "new", prefix="fenced")
    new.comlog("restore", "--from", new.url, "--to", str(new.data_dir))
    newer = new.start()
    base = newer.append("shared", [b"from the newer"] * 3)
    archived.fill_more(newer, "shared", 3 * MIB, place.seed + 1)
    new.comlog("archive", "flush")
    manifest = archived.manifests(store, "fenced")
    archived.fill_more(log, "shared", 3 * MIB, place.seed + 2)
    told = archived.wait_for(lambda: old.metric("comlog_archive_fenced") == 1, 30)
    checks.check("fenced: the older server's metric says so", told)
    flush = old.comlog("archive", "flush", check=False)
    says_so = flush.returncode != 0 and "fenced" in flush.stderr.lower()
    checks.check("fenced: flush on it fails and says so", says_so, flush.stderr)
    checks.check("fenced: its log says so", "fenced" in old.log_text().lower())
    time.sleep(1)
    checks.check("fenced: the newer manifest is untouched", archived.manifests(store, "fenced") == manifest)
    start, end = log.bounds("shared")
    records = log.records("shared")
    checks.check("fenced: the older one goes on serving", len(records) == end - start and start == 0)
    checks.check("fenced: and takes appends", log.append("shared", [b"still here"]) == end)
    checks.check("fenced: and keeps what is not archived", len(old.local_segments(topic)[0]) > 1)
    checks.check("fenced: the newer one is not", new.metric("comlog_archive_fenced") == 0)
    checks.check("fenced: and reads its own", newer.records("shared")[base] == b"from the newer")
    scenarios.sound(checks, "fenced", store, new, "fenced")
    old.kill()
    log = old.start()
    fenced_again = archived.wait_for(lambda: old.metric("comlog_archive_fenced") == 1, 30)
    checks.check("fenced: the older one again after its restart", fenced_again)
    newer.append("shared", [b"the newer goes on"])
    new.comlog("archive", "flush")
    checks.check("fenced: the newer one goes on", new.metric("comlog_archive_fenced") == 0)
    checks.check("fenced: nothing of the older one is lost", log.bounds("shared") == (0, end + 1))


def stale_topic(checks, place):
    """What a newer server said of a topic is not undone by an older one that comes back."""
    newest_topic_wins(checks, place, "stale", alive=False)


def stale_live(checks, place):
    """Nor by an older one that never ended, and is told to change the topic."""
    newest_topic_wins(checks, place, "live", alive=True)


def newest_topic_wins(checks, place, name, alive):
    """Takes an archive over and changes a topic, then lets the older server change it."""
    store = place.moto()
    old = place.server(store, f"{name}-old", prefix=name)
    log = old.start()
    log.create("t", 1)
    archived.fill(log, "t", 1, 2 * MIB, place.seed)
    old.comlog("archive", "flush")
    if not alive:
        old.stop()
    new = place.server(store, f"{name}-new", prefix=name)
    new.comlog("restore", "--from", new.url, "--to", str(new.data_dir))
    newer = new.start()
    alter(newer, partitions=3, retention_ms=86_400_000)
    newer.append("t", [b"in a new partition"], 2)
    new.comlog("archive", "flush")
    if not alive:
        log = old.start()
    alter(log, partitions=2, retention_ms=3_600_000)
    archived.fill_more(log, "t", 2 * MIB, place.seed + 1)
    told = archived.wait_for(lambda: old.metric("comlog_archive_fenced") == 1, 30)
    checks.check(f"{name}: the older one is fenced", told)
    old.kill()
    new.kill()
    shutil.rmtree(new.data_dir)
    new.comlog("restore", "--from", new.url, "--to", str(new.data_dir))
    newer = new.start()
    topic = newer.topics.DescribeTopic(topic_pb2.DescribeTopicRequest(name="t"), timeout=30).topic
    checks.check(f"{name}: partitions of the newer server", topic.partitions == 3, topic.partitions)
    kept = topic.config.retention_ms
    checks.check(f"{name}: its configuration", kept == 86_400_000, kept)
    checks.check(f"{name}: its records", newer.records("t", 2) == {0: b"in a new partition"})


def alter(log, partitions, retention_ms):
    """Changes the topic."""
    config = topic_pb2.TopicConfig(retention_ms=retention_ms)
    request = topic_pb2.AlterTopicRequest(name="t", partitions=partitions, config=config)
    log.topics.AlterTopic(request, timeout=30)


def twins(checks, place):
    """A copied data directory that runs beside its original: neither takes the other's records for its own."""
    store = place.moto()
    one = place.server(store, "twin-one", prefix="twins")
    log = one.start()
    log.create("t", 1, local_retention_bytes=-1)
    archived.fill(log, "t", 1, 2 * MIB, place.seed)
    one.comlog("archive", "flush")
    one.stop()
    two = place.server(store, "twin-two", prefix="twins")
    shutil.copytree(one.data_dir, two.data_dir)
    log, other = one.start(), two.start()
    # The same number of records of the same size: only their content differs.
    for values in ([b"a" * 1000] * 500, [b"b" * 1000] * 500):
        at = log if values[0][:1] == b"a" else other
        for _ in range(8):
            at.append("t", values)
    flushed = [server.comlog("archive", "flush", check=False).returncode for server in (two, one)]
    fenced_ones = [server.metric("comlog_archive_fenced") for server in (one, two)]
    checks.check("twins: not both archive", sum(fenced_ones) >= 1 or any(flushed), (fenced_ones, flushed))
    for server in (one, two):
        server.kill()
    for name, server, mark in (("one", one, b"a"), ("two", two, b"b")):
        log = server.start()
        config = topic_pb2.TopicConfig(local_retention_bytes=0)
        log.topics.AlterTopic(topic_pb2.AlterTopicRequest(name="t", config=config), timeout=30)
        server.comlog("archive", "flush", check=False)
        time.sleep(1)
        start, end = log.bounds("t")
        marks = {value[:1] for at, value in log.records("t").items() if at >= end - 8 * 500}
        checks.check(f"twins: {name} still has its own records", marks == {mark}, marks)
        server.kill()


def promised(checks, place):
    """A store that ignores conditional writes is refused without the operator's promise."""
    server = place.server(place.garage(), "promised", single_writer=False)
    try:
        log = server.start()
    except SystemExit:
        log = None
    if log:
        log.create("t", 1)
        archived.fill(log, "t", 1, 3 * MIB, place.seed)
    archived.wait_for(lambda: "archive-single-writer" in server.log_text(), 20)
    if log:
        refused = archived.wait_for(lambda: server.metric("comlog_archive_refused") == 1, 20)
        checks.check("promised: a metric says so", refused)
        checks.check("promised: which is not that of being fenced", server.metric("comlog_archive_fenced") == 0)
    text = server.log_text()
    held = archived.manifests(place.garage(), "promised")
    checks.check("promised: nothing is archived without the promise", not held)
    checks.check("promised: and the log says why", "archive-single-writer" in text, text[-300:])


if __name__ == "__main__":
    scenarios.main(__doc__, [fenced, stale_topic, stale_live, twins, promised])
