"""Archive faults: a store that is down, slow, throttles, resets, lies or forgets.

Whatever it does, appends go on, no wrong byte reaches a reader, what is damaged is named with its
offset while the rest stays readable, and nothing is lost or archived twice once it behaves again.
"""

import threading
import time

import archived
import fault_proxy
import grpc
import scenarios
import stores
from archived import MIB

RETRIED = [
    fault_proxy.STATUS,
    fault_proxy.RESET_BEFORE,
    fault_proxy.LOST_ANSWER,
    fault_proxy.CUT,
    fault_proxy.RESET_BODY,
    fault_proxy.SHORT,
    fault_proxy.WRONG,
]
# A cache that holds nothing for long, so that each read meets the store.
NO_CACHE = {"archive.cache_bytes_max": 0, "archive.prefetch_bytes": 0}


def behind_proxy(place, store, name, **options):
    """A server whose archive is behind a proxy."""
    proxy = fault_proxy.FaultProxy(store.port)
    return proxy, place.server(store, name, port=proxy.port, **options)


def archive_all(server, log, topic, total_bytes, seed):
    """Fills a topic of one partition and archives it; (segments, hash of what went in)."""
    topic_id = log.create(topic, 1)
    (went_in,) = archived.fill(log, topic, 1, total_bytes, seed)
    server.comlog("archive", "flush")
    if not server.await_trimmed(topic_id):
        raise RuntimeError("the local segments were not trimmed")
    return topic_id, went_in


def segments(store, prefix, topic):
    """The archived segments of a topic's partition 0."""
    (found,) = [m for m in archived.manifests(store, prefix).values() if m["topic"] == topic]
    return found["segments"]


def failure_of(read):
    """(code, reason, metadata) of a call that fails, or None."""
    try:
        read()
    except grpc.RpcError as error:
        return archived.reason_of(error)
    return None


def uploads(checks, place):
    """Each fault in turn meets an upload; everything is archived once in the end."""
    store = place.moto()
    proxy, server = behind_proxy(place, store, "uploads")
    log = server.start()
    topic = log.create("up", 1)
    total, filler = 0, archived.Filler(place.seed)
    for kind in (fault_proxy.STATUS, fault_proxy.RESET_BEFORE, fault_proxy.LOST_ANSWER, fault_proxy.CUT):
        for key in (".log", "/manifest", ".index", "/state-"):
            proxy.clear()
            proxy.add(kind, method="PUT", key=key, times=2)
            for _ in range(3):
                log.append("up", filler.values(500))
                total += 500
            server.comlog("archive", "flush")
            held = archived.wait_for(lambda: server.metric("comlog_archive_backlog_segments") == 0, 30)
            checks.check(f"uploads: {kind} at {key} is overcome", held)
    proxy.clear()
    checks.check("uploads: the writer did not fence itself", server.metric("comlog_archive_fenced") == 0)
    checks.check("uploads: faults were counted", server.metric("comlog_archive_errors_total") > 0)
    archived_segments = segments(store, "uploads", "up")
    ends = [segment["end_offset"] for segment in archived_segments]
    bases = [segment["base_offset"] for segment in archived_segments]
    checks.check("uploads: segments are contiguous", bases == [0, *ends[:-1]], (bases, ends))
    checks.check("uploads: up to the end", ends[-1] == total, ends[-1])
    checks.check("uploads: local files went", server.await_trimmed(topic), server.local_segments(topic))
    scenarios.sound(checks, "uploads", store, server, "uploads")
    proxy.stop()


def reads(checks, place):
    """Each fault in turn meets a cold read; once it is retried, for ever it is an error and never a wrong byte."""
    store = place.garage()
    proxy, server = behind_proxy(place, store, "reads", settings={**NO_CACHE, "archive.request_timeout_ms": 2000})
    log = server.start()
    topic, went_in = archive_all(server, log, "cold", 4 * MIB, place.seed)
    right = log.digest("cold")
    for kind in RETRIED:
        server.kill()
        log = server.start()
        fault = proxy.add(kind, method="GET", key=".log", times=1)
        checks.check(f"reads: {kind} once is retried", log.digest("cold") == right)
        checks.check(f"reads: {kind} was met", not proxy.active(fault))
        proxy.clear()
    for kind, code in {
        fault_proxy.STATUS: "UNAVAILABLE",
        fault_proxy.RESET_BEFORE: "UNAVAILABLE",
        fault_proxy.HANG: "UNAVAILABLE",
        fault_proxy.WRONG: "DATA_LOSS",
        fault_proxy.SHORT: "DATA_LOSS",
    }.items():
        server.kill()
        log = server.start()
        proxy.add(kind, method="GET", key=".log")
        started = time.monotonic()
        failure = failure_of(lambda: log.digest("cold", start=0))
        took = time.monotonic() - started
        checks.check(f"reads: {kind} for ever is {code}", failure and failure[0] == code, (failure, f"{took:.1f} s"))
        appended = failure_of(lambda: log.append("cold", [b"meanwhile"]))
        checks.check(f"reads: appends go on under {kind}", appended is None, appended)
        proxy.clear()
        back = archived.wait_for(lambda: failure_of(lambda: log.digest("cold", start=0)) is None, 30)
        checks.check(f"reads: after {kind} all is readable again", back)
    scenarios.sound(checks, "reads", store, server, "reads")
    proxy.stop()


def damaged(checks, place):
    """An object that is damaged or gone loses its own range and no other; verify names it."""
    store = place.garage()
    server = place.server(store, "damaged", settings=NO_CACHE)
    log = server.start()
    topic, _ = archive_all(server, log, "hurt", 6 * MIB, place.seed)
    values = log.records("hurt")
    first, second, third, fourth = segments(store, "damaged", "hurt")[:4]
    flip(store, f"damaged/topics/{topic}/0/{archived.object_stem(second)}.log")
    gone = f"damaged/topics/{topic}/0/{archived.object_stem(fourth)}.log"
    store.client().delete_object(Bucket=stores.BUCKET, Key=gone)
    server.kill()
    log = server.start()
    for name, segment in {"flipped": second, "deleted": fourth}.items():
        found, failure = read_range(log, "hurt", segment["base_offset"], segment["end_offset"])
        checks.check(f"damaged: {name} is DATA_LOSS", failure and failure[0] == "DATA_LOSS", failure)
        offset = int((failure or ("", "", {}))[2].get("offset", -1))
        checks.check(
            f"damaged: {name}: the error says where to go on",
            segment["base_offset"] < offset <= segment["end_offset"],
            failure,
        )
        checks.check(f"damaged: {name}: no wrong record", all(values[at] == value for at, value in found.items()))
    for segment in (first, third):
        found, failure = read_range(log, "hurt", segment["base_offset"], segment["end_offset"])
        whole = {at: values[at] for at in range(segment["base_offset"], segment["end_offset"])}
        checks.check("damaged: the others are whole", failure is None and found == whole, failure)
    told = server.comlog("archive", "verify", "--from", server.url, check=False)
    text = told.stdout + told.stderr
    checks.check("damaged: verify ends with 6", told.returncode == 6, told.returncode)
    for segment in (second, fourth):
        checks.check("damaged: verify names the object", archived.object_stem(segment) in text, text[-600:])
    checks.check("damaged: and not the sound ones", archived.object_stem(first) + ".log" not in text)


def flip(store, key):
    """Damages one byte in the middle of an object."""
    content = bytearray(store.read(key))
    content[len(content) // 2] ^= 0x10
    store.client().put_object(Bucket=stores.BUCKET, Key=key, Body=bytes(content))


def read_range(log, topic, start, end):
    """({offset: value} found, the failure or None) of a half-open range of offsets."""
    found, offset = {}, start
    while offset < end:
        try:
            fetched = log.read(topic, offset, form=archived.log_pb2.FORM_RECORDS, max_bytes=64 << 10)
        except grpc.RpcError as error:
            return found, archived.reason_of(error)
        found.update({record.offset: record.value for record in fetched.records if record.offset < end})
        offset = fetched.next_offset
    return found, None


def shared_get(checks, place):
    """Many readers of one cold range cause no more requests than one reader."""
    store = place.garage()
    proxy, server = behind_proxy(place, store, "shared", settings={"archive.prefetch_bytes": 0})
    log = server.start()
    archive_all(server, log, "popular", 4 * MIB, place.seed)
    server.kill()
    log = server.start()
    one, other = segments(store, "shared", "popular")[:2]
    log.read("popular", one["base_offset"], max_bytes=64 << 10)
    alone = proxy.count("GET", archived.object_stem(one) + ".log")
    proxy.add(fault_proxy.SLOW, method="GET", key=".log", bytes_per_second=2 * MIB)
    answers = []
    readers = [
        threading.Thread(
            target=lambda: answers.append(
                b"".join(log.read("popular", other["base_offset"], max_bytes=64 << 10).chunks)
            )
        )
        for _ in range(20)
    ]
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join()
    crowd = proxy.count("GET", archived.object_stem(other) + ".log")
    checks.check("shared: all are answered the same", len(answers) == 20 and len(set(answers)) == 1 and answers[0])
    checks.check("shared: 20 readers cost what one costs", 0 < crowd <= alone, (alone, crowd))
    before = len(proxy.seen)
    log.read("popular", other["base_offset"], max_bytes=64 << 10)
    checks.check("shared: and it is cached", len(proxy.seen) == before, proxy.seen[before:])
    proxy.stop()


def absent_at_start(checks, place):
    """A server starts, appends and serves what it has while its store is down, and archives later."""
    store = place.garage()
    proxy, server = behind_proxy(place, store, "absent")
    proxy.stop()
    log = server.start()
    topic = log.create("early", 1)
    (went_in,) = archived.fill(log, "early", 1, 4 * MIB, place.seed)
    checks.check("absent: all is readable without the store", archived.values_digest(log, "early", 0) == went_in)
    checks.check("absent: nothing local goes", len(server.local_segments(topic)[0]) > 3)
    waiting = archived.wait_for(lambda: server.metric("comlog_archive_backlog_segments") > 0, 10)
    checks.check("absent: the backlog shows", waiting)
    aged = archived.wait_for(lambda: server.metric("comlog_archive_oldest_unarchived_seconds") > 0, 10)
    checks.check("absent: and its age", aged)
    waited = time.monotonic()
    flush = server.comlog("archive", "status", check=False)
    checks.check("absent: status answers", flush.returncode == 0 and time.monotonic() - waited < 30, flush.stderr)
    proxy.start()
    drained = archived.wait_for(lambda: server.metric("comlog_archive_backlog_segments") == 0, 60)
    checks.check("absent: the backlog drains when it is back", drained)
    checks.check("absent: local files go then", server.await_trimmed(topic))
    checks.check("absent: all the same", archived.values_digest(log, "early", 0) == went_in)
    proxy.stop()
    server.kill()
    log = server.start()
    start, end = log.bounds("early")
    checks.check("absent: bounds are known without the store", (start, end > 0) == (0, True), (start, end))
    failure = failure_of(lambda: log.read("early", 0, timeout=90))
    checks.check("absent: cold data is UNAVAILABLE", failure and failure[0] == "UNAVAILABLE", failure)
    checks.check("absent: appends go on", log.append("early", [b"x"]) == end)
    proxy.start()
    checks.check(
        "absent: and all is there again",
        archived.wait_for(lambda: failure_of(lambda: log.digest("early")) is None, 30),
    )
    proxy.stop()


def archive_filled(server, log, topic, seed):
    """Appends some, and flushes with patience; the last flush."""
    archived.fill_more(log, topic, 2 * MIB, seed)
    archived.wait_for(lambda: server.comlog("archive", "flush", check=False).returncode == 0, 10)
    return server.comlog("archive", "flush", check=False)


def first_steps(checks, place):
    """What goes wrong once while a server looks at its store for the first time is asked again."""
    store = place.moto()
    for number, (kind, method, key) in enumerate(
        [
            (fault_proxy.FALSE_503, "PUT", "/probe/"),
            (fault_proxy.LOST_ANSWER, "PUT", "/probe/"),
            (fault_proxy.FALSE_503, "PUT", "/comlog-archive"),
            (fault_proxy.WRONG, "GET", "/comlog-archive"),
            (fault_proxy.SHORT, "GET", "/comlog-archive"),
            (fault_proxy.FALSE_503, "PUT", "/manifest"),
            (fault_proxy.LOST_ANSWER, "PUT", "/manifest"),
            (fault_proxy.WRONG, "GET", "/manifest"),
            (fault_proxy.SHORT, "GET", "/manifest"),
        ]
    ):
        name = f"first-{number}"
        proxy, server = behind_proxy(place, store, name)
        if method == "GET":  # there must be something to get
            log = server.start()
            log.create("t", 1)
            archive_filled(server, log, "t", place.seed)
            server.kill()
        fault = proxy.add(kind, method=method, key=key, times=1)
        log = server.start()
        if method == "PUT":
            log.create("t", 1)
        flush = archive_filled(server, log, "t", place.seed)
        checks.check(f"first: {kind} of {method} {key} is overcome", flush.returncode == 0, flush.stderr)
        checks.check(f"first: {kind} of {method} {key} was met", not proxy.active(fault))
        named = [m["segments"] for m in archived.manifests(store, name).values() if m["topic"] == "t"]
        stored = [segment["end_offset"] for found in named for segment in found]
        checks.check("first: all is archived after it", stored[-1:] == [log.bounds("t")[1]], stored)
        server.kill()
        proxy.stop()


SCENARIOS = [first_steps, uploads, reads, damaged, shared_get, absent_at_start]


if __name__ == "__main__":
    scenarios.main(__doc__, SCENARIOS)
