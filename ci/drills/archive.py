"""Archive drill: the second home of the log, shown against garage.

What was trimmed from the local disk reads as before, byte for byte; a data directory that is gone
comes back from the store alone; an object fetched with a plain HTTP client is a segment file.
Short by default, `--full` archives 1 GiB.
"""

import os
import shutil
import subprocess
import threading
import time
import urllib.request

import archived
import fault_proxy
import harness
import scenarios
import stores
from archived import MIB, topic_pb2

PARTITIONS = 4


def whole(checks, place):
    """Everything archived and trimmed from the local disk reads as before."""
    total = (1 << 30) if place.full else 24 * MIB
    store = place.garage()
    server = place.server(store, "whole")
    log = server.start()
    topic = log.create(
        "whole", PARTITIONS, segment_bytes=16 * MIB if place.full else MIB, local_retention_bytes=-1
    )
    started = time.monotonic()
    went_in = archived.fill(log, "whole", PARTITIONS, total, place.seed)
    produced = time.monotonic()
    local = [log.digest("whole", partition) for partition in range(PARTITIONS)]
    middle = log.read("whole", local[0][2] // 2, form=archived.log_pb2.FORM_RECORDS, max_bytes=1).records[0]
    at_middle = log.at_time("whole", middle.timestamp_ms)
    log.topics.AlterTopic(
        topic_pb2.AlterTopicRequest(name="whole", config=topic_pb2.TopicConfig(local_retention_bytes=0)),
        timeout=30,
    )
    trimmed = server.await_trimmed(topic, 600 if place.full else 60)
    checks.check("whole: only the active segments stay local", trimmed, server.local_segments(topic))
    before = server.metric("comlog_archive_read_bytes_total")
    again = [log.digest("whole", partition) for partition in range(PARTITIONS)]
    checks.check("whole: the same bytes, from offset 0", again == local and all(d[1] == 0 for d in again))
    came_out = [archived.values_digest(log, "whole", partition) for partition in range(PARTITIONS)]
    checks.check("whole: every record that went in", came_out == went_in)
    read = server.metric("comlog_archive_read_bytes_total") - before
    checks.check("whole: it came from the archive", read > total // 2, read)
    checks.check("whole: a time finds the same offset", log.at_time("whole", middle.timestamp_ms) == at_middle)
    scenarios.sound(checks, "whole", store, server, "whole")
    print(f"whole: {total >> 20} MiB over {PARTITIONS} partitions, produced in {produced - started:.1f} s")
    server.kill()
    log = server.start()
    again, took = timed(lambda: [log.digest("whole", partition) for partition in range(PARTITIONS)])
    checks.check("whole: the same bytes after a kill", again == local)
    keys = sorted(key for key in archived.named_keys(store, "whole") if key.endswith(".log") and topic in key)
    lengths, plain = timed(lambda: [len(store.read(key)) for key in keys])
    ratio = (total / took) / (sum(lengths) / plain)
    print(
        f"whole: {sum(lengths) >> 20} MiB by plain GETs in {plain:.2f} s; "
        f"{total >> 20} MiB through the server with nothing cached in {took:.2f} s: {ratio:.0%} of their bandwidth"
    )


def timed(call):
    """What a call gives, and the seconds it took."""
    started = time.monotonic()
    return call(), time.monotonic() - started


def state(log, groups, topics):
    """What a rebuilt server must show as before."""
    shown = {group: log.committed(group) for group in groups}
    for name, partitions in topics.items():
        described = log.topics.DescribeTopic(topic_pb2.DescribeTopicRequest(name=name), timeout=30)
        shown[name] = (
            described.topic.id,
            described.topic.config.SerializeToString(deterministic=True),
            [(*log.digest(name, partition), log.bounds(name, partition)) for partition in range(partitions)],
            [archived.values_digest(log, name, partition) for partition in range(partitions)],
        )
    return shown


def rebuild(checks, place):
    """A data directory that is gone comes back from the store alone, twice."""
    store = place.garage()
    server = place.server(store, "rebuild")
    log = server.start()
    topics = {"orders": 2, "kept": 1}
    log.create("orders", 2)
    log.create("kept", 1, local_retention_bytes=-1, retention_ms=86_400_000)
    deleted = log.create("deleted", 1)
    archived.fill(log, "orders", 2, (128 if place.full else 6) * MIB, place.seed)
    archived.fill(log, "kept", 1, 3 * MIB, place.seed + 9)
    archived.fill(log, "deleted", 1, 3 * MIB, place.seed + 10)
    log.topics.DeleteTopic(topic_pb2.DeleteTopicRequest(name="deleted"), timeout=30)
    cleared = archived.wait_for(lambda: not [key for key in store.keys("rebuild/") if deleted in key])
    checks.check("rebuild: nothing stays of a deleted topic", cleared)
    log.commit("shipping", "orders", 1234)
    log.commit("shipping", "orders", 77, 1)
    log.commit("billing", "kept", 5)
    given = log.logs.InitProducerId(archived.log_pb2.InitProducerIdRequest(), timeout=30)
    producer = archived.log_pb2.Producer(id=given.producer_id, epoch=given.producer_epoch, sequence=0)
    first = log.append("kept", [b"once"], producer=producer)
    server.comlog("archive", "flush")
    before = state(log, ["shipping", "billing"], topics)
    epochs = leader_epochs(log, topics)
    server.kill()
    for round_number in (1, 2):
        shutil.rmtree(server.data_dir)
        server.comlog("restore", "--from", server.url, "--to", str(server.data_dir))
        log = server.start()
        name = f"rebuild {round_number}"
        after = state(log, ["shipping", "billing"], topics)
        for part, shown in before.items():
            checks.check(f"{name}: {part} is as before", after[part] == shown)
        raised = leader_epochs(log, topics)
        checks.check(f"{name}: leader epochs are raised", all(raised[at] > epochs[at] for at in epochs), raised)
        epochs = raised
        again = log.logs.Append(
            archived.log_pb2.AppendRequest(
                topic="kept", records=[archived.common_pb2.Record(value=b"once")], producer=producer
            ),
            timeout=30,
        ).appended
        checks.check(f"{name}: a retried batch is known", again.duplicate and again.base_offset == first)
        fresh = log.logs.InitProducerId(archived.log_pb2.InitProducerIdRequest(), timeout=30)
        checks.check(f"{name}: producer ids go on", fresh.producer_id > given.producer_id)
        given = fresh
        log.append("kept", [b"by a new producer"], producer=archived.log_pb2.Producer(id=fresh.producer_id, sequence=0))
        names = [topic.name for topic in log.topics.ListTopics(topic_pb2.ListTopicsRequest(), timeout=30).topics]
        names.remove("comlog")  # that of the original API is always there
        checks.check(f"{name}: no more topics than before", sorted(names) == sorted(topics), names)
        for topic, partitions in topics.items():
            for partition in range(partitions):
                end = log.bounds(topic, partition)[1]
                base = log.append(topic, [b"after %d" % round_number], partition)
                checks.check(f"{name}: {topic}/{partition} goes on at the next offset", base == end, (base, end))
        log.commit("shipping", "orders", 2000 + round_number)
        server.comlog("archive", "flush")
        scenarios.sound(checks, name, store, server, "rebuild")
        before = state(log, ["shipping", "billing"], topics)
        server.kill()


def leader_epochs(log, topics):
    """The leader epoch of every partition."""
    found = {}
    for name in topics:
        described = log.topics.DescribeTopic(topic_pb2.DescribeTopicRequest(name=name), timeout=30)
        for partition in described.partitions:
            found[name, partition.partition] = partition.leader_epoch
    return found


def inspected(checks, place):
    """An object fetched with a plain HTTP client is the segment file, and reads as one."""
    store = place.garage()
    server = place.server(store, "inspected")
    log = server.start()
    topic = log.create("plain", 1, local_retention_bytes=-1)
    archived.fill(log, "plain", 1, 3 * MIB, place.seed)
    server.comlog("archive", "flush")
    (manifest,) = [m for m in archived.manifests(store, "inspected").values() if m["topic"] == "plain"]
    for segment in manifest["segments"]:
        key = f"inspected/topics/{topic}/0/{archived.object_stem(segment)}.log"
        url = store.client().generate_presigned_url(
            "get_object", Params={"Bucket": stores.BUCKET, "Key": key}, ExpiresIn=60
        )
        with urllib.request.urlopen(url, timeout=30) as answer:
            content = answer.read()
        local = server.data_dir / "topics" / topic / "0" / f"{segment['base_offset']:020}.log"
        checks.check("inspected: the object is the segment file", content == local.read_bytes())
        fetched = place.folder / local.name
        fetched.write_bytes(content)
        shown = subprocess.run([harness.binary(), "inspect", str(fetched)], capture_output=True, text=True)
        checks.check("inspected: comlog inspect reads it", shown.returncode == 0 and shown.stdout, shown.stderr)
        ends = archived.end_of_batches(content, segment["base_offset"])
        checks.check("inspected: the manifest has its end", ends == segment["end_offset"], ends)
        checks.check("inspected: and its length", len(content) == segment["len"])


def restored(checks, place):
    """Restoring begins anew after a kill, refuses what is not empty, and refuses what is damaged."""
    store = place.garage()
    proxy = fault_proxy.FaultProxy(store.port)
    server = place.server(store, "restored", port=proxy.port)
    log = server.start()
    topic = log.create("r", 1)
    archived.fill(log, "r", 1, 6 * MIB, place.seed)
    server.comlog("archive", "flush")
    before = log.digest("r")
    server.kill()
    words = ["restore", "--from", server.url, "--to", str(server.data_dir)]
    told = server.comlog(*words, check=False)
    checks.check("restored: not over a data directory", told.returncode not in (0, 6), (told.returncode, told.stderr))
    shutil.rmtree(server.data_dir)
    proxy.add(fault_proxy.SLOW, method="GET", key=".log", bytes_per_second=2 * MIB)
    process = subprocess.Popen(
        [harness.binary(), *words],
        env={**os.environ, **server.environment},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    begun = archived.wait_for(lambda: proxy.count("GET", ".log") >= 2 or process.poll() is not None)
    checks.check("restored: killed on its way", begun and process.poll() is None)
    process.kill()
    process.wait()
    checks.check("restored: half a directory is none", not server.data_dir.exists())
    proxy.clear()
    for kind in (fault_proxy.WRONG, fault_proxy.CUT, fault_proxy.STATUS):
        proxy.add(kind, method="GET", key=".log", times=1)
    server.comlog(*words)
    log = server.start()
    checks.check("restored: whole, through faults on the way", log.digest("r") == before)
    server.kill()
    proxy.add(fault_proxy.WRONG, method="GET", key=".log")
    elsewhere = place.folder / "elsewhere"
    told = server.comlog("restore", "--from", server.url, "--to", str(elsewhere), check=False)
    checks.check("restored: damage ends with 6", told.returncode == 6, (told.returncode, told.stderr[-300:]))
    checks.check("restored: and names the object", topic in told.stderr, told.stderr[-300:])
    checks.check("restored: and leaves nothing", not elsewhere.exists())
    proxy.clear()
    told = server.comlog("restore", "--from", store.url("nowhere"), "--to", str(elsewhere), check=False)
    checks.check("restored: no archive is an error", told.returncode == 3, (told.returncode, told.stderr[-300:]))
    proxy.stop()


def directory(checks, place):
    """A directory as the archive, by file://; it needs the promise, as it has no conditional writes."""
    server = place.server(place.garage(), "directory")
    server.url = f"file://{place.folder}/archive-dir"
    server.flags = []
    try:
        server.start()
        refused = False
    except SystemExit:
        refused = True
    checks.check("directory: refused without the promise", refused)
    checks.check("directory: and the log says why", "archive-single-writer" in server.log_text(), server.log_text()[-300:])
    server.flags = ["--archive-single-writer"]
    log = server.start()
    topic = log.create("d", 1)
    (went_in,) = archived.fill(log, "d", 1, 4 * MIB, place.seed)
    server.comlog("archive", "flush")
    checks.check("directory: trimmed", server.await_trimmed(topic))
    checks.check("directory: read back", archived.values_digest(log, "d", 0) == went_in)
    wrong = server.verify()
    checks.check("directory: archive verify is clean", not wrong, wrong)
    server.kill()
    shutil.rmtree(server.data_dir)
    server.comlog("restore", "--from", server.url, "--to", str(server.data_dir))
    log = server.start()
    checks.check("directory: rebuilt", archived.values_digest(log, "d", 0) == went_in)


def moving(checks, place):
    """Readers see every record while segments leave the local disk under them."""
    store = place.garage()
    server = place.server(store, "moving", settings={"archive.cache_bytes_max": 4 * MIB})
    log = server.start()
    topic = log.create("moving", 1)
    failures, rounds, ended = [], [], threading.Event()

    def read_on():
        try:
            while not ended.is_set():
                rounds.append(log.digest("moving", start=0)[2])
        except Exception as error:  # told below, in the thread of the checks
            failures.append(error)

    readers = [threading.Thread(target=read_on) for _ in range(3)]
    for reader in readers:
        reader.start()
    (went_in,) = archived.fill(log, "moving", 1, (200 if place.full else 16) * MIB, place.seed, batch=100)
    trimmed = server.await_trimmed(topic)
    ended.set()
    for reader in readers:
        reader.join()
    checks.check("moving: no reader noticed", not failures, failures[:2])
    checks.check("moving: they read while it moved", len(set(rounds)) > 2, len(rounds))
    checks.check("moving: and it did move", trimmed)
    checks.check("moving: every record that went in", archived.values_digest(log, "moving", 0) == went_in)


def secret(checks, place):
    """Nothing secret is printed or logged."""
    store = place.garage()
    server = place.server(store, "secret", settings={"log.level": "debug"})
    log = server.start()
    log.create("t", 1)
    archived.fill(log, "t", 1, 2 * MIB, place.seed)
    server.comlog("archive", "flush")
    printed = server.comlog("serve", "--print-config", "--archive", server.url, *server.flags)
    status = server.comlog("archive", "status") + server.comlog("archive", "status", "-o", "json")
    everything = printed + status + server.log_text()
    checks.check("secret: status and configuration name the archive", "s3://" in printed)
    checks.check("secret: no secret key anywhere", store.secret_key not in everything)
    checks.check("secret: no access key either", store.access_key not in everything)


def switched_off(checks, place):
    """A topic without archive is not in the store, and loses nothing for it."""
    store = place.garage()
    server = place.server(store, "off")
    log = server.start()
    log.create("local", 1, archive=False, local_retention_bytes=-1)
    went_in = archived.fill(log, "local", 1, 3 * MIB, place.seed)
    server.comlog("archive", "flush")
    named = [manifest["topic"] for manifest in archived.manifests(store, "off").values()]
    checks.check("off: not in the archive", "local" not in named, named)
    checks.check("off: all there", archived.values_digest(log, "local", 0) == went_in[0])


def retained(checks, place):
    """Retention and trim remove archived segments, and only those."""
    store = place.garage()
    settings = {
        "archive.orphan_grace_ms": 500,
        "archive.orphan_scan_interval_ms": 500,
        "append.maintain_interval_ms": 200,
    }
    server = place.server(store, "retained", settings=settings)
    log = server.start()
    topic = log.create("shrinking", 1)
    went_in = archived.fill(log, "shrinking", 1, 8 * MIB, place.seed)
    server.comlog("archive", "flush")
    checks.check("retained: all there", archived.values_digest(log, "shrinking", 0) == went_in[0])
    _, end = log.bounds("shrinking")
    values = log.records("shrinking")
    log.logs.Trim(archived.log_pb2.TrimRequest(topic="shrinking", offset=end // 2), timeout=30)
    server.comlog("archive", "flush")
    kept = log.records("shrinking")
    checks.check("retained: trimmed to the offset asked for", kept == {at: values[at] for at in range(end // 2, end)})
    gone = archived.wait_for(lambda: not archived.orphans(store, "retained"), 30)
    checks.check("retained: nothing stays behind a trim", gone, archived.orphans(store, "retained")[:3])
    lowest = archived.manifests(store, "retained")[f"retained/topics/{topic}/0/manifest"]["segments"][0]
    checks.check("retained: segments below the start are gone", lowest["end_offset"] > end // 2, lowest)
    log.topics.AlterTopic(
        topic_pb2.AlterTopicRequest(name="shrinking", config=topic_pb2.TopicConfig(retention_bytes=2 * MIB)),
        timeout=30,
    )
    shrunk = archived.wait_for(lambda: log.bounds("shrinking")[0] > end // 2, 60)
    checks.check("retained: by bytes as well", shrunk, log.bounds("shrinking"))
    kept = log.records("shrinking")
    checks.check("retained: what is left is right", all(values[at] == value for at, value in kept.items()))
    left = sum(len(value) for value in kept.values())
    checks.check("retained: not less than asked for", left > MIB, left)
    scenarios.sound(checks, "retained", store, server, "retained")
    start = log.bounds("shrinking")[0]
    server.kill()
    log = server.start()
    checks.check("retained: the start stays after a kill", log.bounds("shrinking")[0] == start)


SCENARIOS = [whole, rebuild, restored, moving, directory, inspected, secret, switched_off, retained]


if __name__ == "__main__":
    scenarios.main(__doc__, SCENARIOS)
