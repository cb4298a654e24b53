"""Archive kill drill: SIGKILL in the middle of uploads, manifest writes, local deletion and retention.

A producer appends, segments are archived, local files go at once and retention removes the oldest
objects, while a proxy before the store waits for a moment drawn by lot (an upload half sent, a
manifest stored but not yet answered, an object just deleted) and kills the server in it. After
every restart each acknowledged record must be there once and unaltered, unless retention was
entitled to it; while the server is dead no manifest may name an object that is not there; in the
end nothing is left in the store that no manifest names, and a rebuilt server shows the same.
"""

import hashlib
import random
import shutil
import subprocess
import threading
import time

import archived
import fault_proxy
import grpc
import harness
import scenarios
from archived import MIB

PARTITIONS = 2
RETENTION_BYTES = 6 * MIB
SEGMENT_BYTES = MIB
BATCH = 250
KILL_WITHIN_SECONDS = 4
SETTINGS = {
    "archive.interval_ms": 20,
    "archive.roll_interval_ms": 700,
    "archive.orphan_grace_ms": 1000,
    "archive.orphan_scan_interval_ms": 300,
    # Retention is applied so often.
    "append.maintain_interval_ms": 200,
}
# What is waited for: stages of requests of a method, for keys that contain a word.
MOMENTS = [
    *((stage, ("PUT",), ".log") for stage in (fault_proxy.BEFORE, fault_proxy.HALF, fault_proxy.DONE)),
    *((stage, ("PUT",), "/manifest") for stage in (fault_proxy.BEFORE, fault_proxy.DONE)),
    (fault_proxy.DONE, ("PUT",), "/state-"),
    (fault_proxy.DONE, ("PUT",), "index"),
    # Local files go when the manifest is known to be written.
    *((fault_proxy.ANSWERED, ("PUT",), "/manifest"),) * 3,
    # Retention and orphans; several keys may go in one POST.
    *((stage, ("DELETE", "POST"), "/") for stage in (fault_proxy.BEFORE, fault_proxy.DONE, fault_proxy.ANSWERED)),
    None,
]


class Producer:
    """Appends to one partition until the server dies; notes what was sent and what was acknowledged."""

    def __init__(self, partition, seed):
        self.partition = partition
        self.filler = archived.Filler(seed)
        self.sent = set()
        self.acknowledged = {}

    def begin(self, log):
        """Goes on against a server that was started."""
        self.thread = threading.Thread(target=self._produce, args=[log], daemon=True)
        self.thread.start()

    def join(self):
        """Waits for its end; the server must be dead."""
        self.thread.join()

    def _produce(self, log):
        while True:
            values = self.filler.values(BATCH)
            digests = [digest(value) for value in values]
            self.sent.update(digests)
            try:
                base = log.append("killed", values, self.partition, timeout=10)
            except grpc.RpcError:
                return
            self.acknowledged.update(enumerate(digests, base))
            time.sleep(0.02)

    def read(self, log):
        """The start, the end and the records; again while retention moves the start meanwhile."""
        while True:
            start, end = log.bounds("killed", self.partition)
            try:
                records = log.records("killed", self.partition)
            except grpc.RpcError as error:
                if archived.reason_of(error)[1] != "OFFSET_OUT_OF_RANGE":
                    raise
                continue
            if log.bounds("killed", self.partition)[0] == start:
                return start, end, records

    def check(self, log):
        """What is wrong with what the partition holds, or an empty text."""
        start, end, records = self.read(log)
        held = {at: digest(value) for at, value in records.items()}
        last = max(self.acknowledged, default=-1)
        if start + len(held) != end or end <= last:
            return f"holds {len(held)} from {start}, ends at {end}, acknowledged up to {last}"
        wrong = [at for at, value in self.acknowledged.items() if at >= start and held[at] != value]
        if wrong:
            return f"{len(wrong)} acknowledged records are altered, the first at {min(wrong)}"
        if len(set(held.values())) != len(held) or not set(held.values()) <= self.sent:
            return "holds records twice, or some that were never sent"
        size = sum(len(value) for value in records.values())
        if start > 0 and size < RETENTION_BYTES - 2 * SEGMENT_BYTES:
            return f"starts at {start} with only {size} bytes left"
        return ""


def digest(value):
    """Short enough to keep millions."""
    return hashlib.blake2b(value, digest_size=12).digest()


class Killer:
    """Kills the server when the proxy sees a moment for the nth time, at the latest after a while."""

    def __init__(self, server, proxy, rng):
        self.process = server.server.process
        self.moment = rng.choice(MOMENTS)
        self.left = rng.randint(1, 3)
        self.pause = rng.uniform(0, 0.03)
        self.deadline = rng.uniform(0.2, 2) if self.moment is None else KILL_WITHIN_SECONDS
        self.lock = threading.Lock()
        self.hit = False
        proxy.watch = self.see

    def see(self, stage, method, path):
        """What the proxy sees."""
        if self.moment is None:
            return
        when, methods, word = self.moment
        if stage != when or method not in methods or word not in path or "/probe/" in path:
            return
        with self.lock:
            self.left -= 1
            if self.left != 0:
                return
        if when == fault_proxy.ANSWERED:
            time.sleep(self.pause)
        self.process.kill()
        self.hit = True

    def wait(self):
        """Returns when the server is dead."""
        try:
            self.process.wait(self.deadline)
        except subprocess.TimeoutExpired:  # the moment did not come
            self.process.kill()
            self.process.wait()

    def __str__(self):
        if self.moment is None:
            return f"after {self.deadline:.2f} s"
        stage, methods, word = self.moment
        return f"{'/'.join(methods)} of {word}, {stage}" + ("" if self.hit else ": never came")


def kills(checks, place, store, name):
    """The drill against one store, in its half of the time."""
    rng = random.Random(place.seed)
    proxy = fault_proxy.FaultProxy(store.port)
    server = place.server(store, name, port=proxy.port, settings=SETTINGS)
    log = server.start()
    topic = log.create("killed", PARTITIONS, segment_bytes=SEGMENT_BYTES, retention_bytes=RETENTION_BYTES)
    log.commit("watcher", "killed", 0)
    producers = [Producer(partition, place.seed + partition) for partition in range(PARTITIONS)]
    hits = 0
    rounds = harness.Rounds(place.args, share=1 / 2)
    for number in (at + 1 for at in rounds):
        killer = Killer(server, proxy, rng)
        for producer in producers:
            producer.begin(log)
        killer.wait()
        proxy.watch = None
        for producer in producers:
            producer.join()
        server.kill()
        hits += killer.hit or killer.moment is None
        missing = archived.missing(store, name)
        log = server.start()
        wrong = [found for found in (producer.check(log) for producer in producers) if found]
        found = wrong + missing[:3]
        checks.check(f"{name}: nothing lost or doubled by kill {number} ({killer})", not found, found or "")
        committed = [at[2] for at in log.committed("watcher")]
        checks.check(f"{name}: committed before kill {number}, and still", committed == [number - 1], committed)
        log.commit("watcher", "killed", number)
    print(f"{name}: {hits} of {rounds.done} kills were in the moment drawn")
    aftermath(checks, place, store, server, proxy, log, name, topic, producers)


def aftermath(checks, place, store, server, proxy, log, name, topic, producers):
    """Nothing is left over, and the archive alone gives the same log."""
    server.comlog("archive", "flush")
    checks.check(f"{name}: local files are trimmed", server.await_trimmed(topic))
    clean = archived.wait_for(lambda: not archived.orphans(store, name), 30)
    checks.check(f"{name}: no orphan stays after its grace", clean, archived.orphans(store, name)[:5])
    checks.check(f"{name}: not fenced", server.metric("comlog_archive_fenced") == 0)
    scenarios.sound(checks, name, store, server, name)
    before = [log.digest("killed", partition) for partition in range(PARTITIONS)]
    server.kill()
    shutil.rmtree(server.data_dir)
    server.comlog("restore", "--from", server.url, "--to", str(server.data_dir))
    log = server.start()
    after = [log.digest("killed", partition) for partition in range(PARTITIONS)]
    checks.check(f"{name}: rebuilt, the log is the same", after == before, (before, after))
    wrong = list(filter(None, (producer.check(log) for producer in producers)))
    checks.check(f"{name}: with every record", not wrong, wrong)
    server.kill()
    proxy.stop()


def kills_garage(checks, place):
    """Against garage, one writer by promise."""
    kills(checks, place, place.garage(), "kills-garage")


def kills_moto(checks, place):
    """Against moto, conditional writes."""
    kills(checks, place, place.moto(), "kills-moto")


if __name__ == "__main__":
    scenarios.main(__doc__, [kills_garage, kills_moto], rounds=(50, "kill"))
