"""What the archive drills share: a server that archives, a producer, and what a log holds."""

import hashlib
import json
import os
import random
import struct
import subprocess
import threading
import time
import urllib.request

import grpc
import harness
from google.rpc import error_details_pb2
from grpc_status import rpc_status

harness.generate_stubs()
from comlog.v1 import (  # noqa: E402
    common_pb2,
    group_pb2,
    group_pb2_grpc,
    log_pb2,
    log_pb2_grpc,
    topic_pb2,
    topic_pb2_grpc,
)

MIB = 1 << 20
READ_BYTES = 4 * MIB
BATCH_HEAD = struct.Struct(">qii")
LAST_OFFSET_DELTA = struct.Struct(">i")


class Archived:
    """One server, its data directory and its archive, over kills and restarts."""

    def __init__(self, folder, store, prefix, port=None, settings=None, single_writer=False):
        self.data_dir = folder / "data"
        folder.mkdir(parents=True, exist_ok=True)
        self.url = store.url(prefix)
        self.environment = store.environment(port)
        self.settings = {
            "archive.interval_ms": 50,
            "archive.backoff_max_ms": 500,
            **(settings or {}),
        }
        self.flags = ["--archive-single-writer"] if single_writer else []
        self.server = None

    def start(self):
        """Starts the server; recovery is done when this returns."""
        settings = [word for name, value in self.settings.items() for word in ("--set", f"{name}={value}")]
        words = ["--archive", self.url, *self.flags, *settings]
        self.server = harness.Server(self.data_dir, *words, environment=self.environment)
        return Log(self.server.address)

    def kill(self):
        """SIGKILL, if it runs."""
        if self.server:
            self.server.kill()
            self.server = None

    def stop(self):
        """SIGTERM."""
        self.server.stop()
        self.server = None

    def comlog(self, *words, check=True):
        """Runs a command of the binary against this server and archive; its standard output."""
        command = [harness.binary(), *words]
        environment = {**os.environ, **self.environment}
        if self.server:
            environment["COMLOG_SERVER"] = f"http://{self.server.address}"
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        if not check:
            return done
        if done.returncode != 0:
            raise RuntimeError(f"{' '.join(words)}: exit {done.returncode}: {done.stderr.strip()}")
        return done.stdout

    def verify(self):
        """What `archive verify` finds wrong, empty when the archive is sound."""
        done = self.comlog("archive", "verify", "--from", self.url, check=False)
        return "" if done.returncode == 0 else f"exit {done.returncode}: {done.stdout[-500:]} {done.stderr[-500:]}"

    def metric(self, name):
        """One of the server's metrics."""
        with urllib.request.urlopen(f"http://{self.server.address}/metrics", timeout=10) as answer:
            for line in answer.read().decode().splitlines():
                words = line.split()
                if words and words[0] == name:
                    return float(words[1])
        raise RuntimeError(f"/metrics has no {name}")

    def log_text(self):
        """What the server has logged so far."""
        return open(f"{self.data_dir}.log", errors="replace").read()

    def local_segments(self, topic_id):
        """The segment files of a topic on the local disk, by partition."""
        found = {}
        for path in sorted((self.data_dir / "topics" / topic_id).glob("*/*.log")):
            found.setdefault(int(path.parent.name), []).append(path)
        return found

    def await_trimmed(self, topic_id, seconds=60):
        """Waits until only the active segment of each partition is on the local disk."""
        return wait_for(
            lambda: all(len(paths) == 1 for paths in self.local_segments(topic_id).values()), seconds
        )


class Log:
    """A client of one server."""

    def __init__(self, address):
        options = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
        self.channel = grpc.insecure_channel(address, options)
        self.logs = log_pb2_grpc.LogServiceStub(self.channel)
        self.topics = topic_pb2_grpc.TopicServiceStub(self.channel)
        self.groups = group_pb2_grpc.GroupServiceStub(self.channel)

    def create(self, name, partitions=1, **config):
        """Creates a topic with segments of 1 MiB that stay local only while active; its id."""
        config = {"segment_bytes": MIB, "local_retention_bytes": 0, **config}
        request = topic_pb2.CreateTopicRequest(
            name=name, partitions=partitions, config=topic_pb2.TopicConfig(**config)
        )
        return self.topics.CreateTopic(request, timeout=30).topic.id

    def append(self, topic, values, partition=0, timeout=30, **options):
        """Appends values as one batch; its first offset."""
        records = [common_pb2.Record(value=value) for value in values]
        request = log_pb2.AppendRequest(topic=topic, partition=partition, records=records, **options)
        return self.logs.Append(request, timeout=timeout).appended.base_offset

    def read(self, topic, offset, partition=0, max_bytes=READ_BYTES, form=log_pb2.FORM_BATCHES, timeout=60):
        """One read, as it is answered."""
        request = log_pb2.ReadRequest(
            topic=topic, partition=partition, offset=offset, max_bytes=max_bytes, form=form
        )
        return self.logs.Read(request, timeout=timeout).fetched

    def bounds(self, topic, partition=0):
        """(log start offset, high watermark)."""
        query = log_pb2.OffsetQuery(topic=topic, partition=partition)
        found = self.logs.ListOffsets(log_pb2.ListOffsetsRequest(queries=[query]), timeout=60).offsets[0]
        return found.log_start_offset, found.high_watermark

    def at_time(self, topic, timestamp_ms, partition=0):
        """The first offset at or after a time."""
        query = log_pb2.OffsetQuery(
            topic=topic, partition=partition, at=common_pb2.StartAt(timestamp_ms=timestamp_ms)
        )
        return self.logs.ListOffsets(log_pb2.ListOffsetsRequest(queries=[query]), timeout=60).offsets[0].offset

    def records(self, topic, partition=0):
        """Every record by offset; each must come once and in order."""
        found, (offset, _) = {}, self.bounds(topic, partition)
        while True:
            fetched = self.read(topic, offset, partition, form=log_pb2.FORM_RECORDS)
            for record in fetched.records:
                if record.offset != offset:
                    raise RuntimeError(f"offset {record.offset} came where {offset} was due")
                found[record.offset] = record.value
                offset += 1
            if fetched.next_offset != offset:
                raise RuntimeError(f"read on at {fetched.next_offset} after {offset - 1}")
            if not fetched.records:
                return found

    def digest(self, topic, partition=0, start=None):
        """(SHA-256 over the bytes of all batches, first offset, end offset); batches must be contiguous."""
        sha, first = hashlib.sha256(), self.bounds(topic, partition)[0] if start is None else start
        offset = first
        while True:
            data = b"".join(self.read(topic, offset, partition).chunks)
            if not data:
                return sha.hexdigest(), first, offset
            sha.update(data)
            offset = end_of_batches(data, offset)

    def commit(self, group, topic, offset, partition=0):
        """Commits an offset for a group."""
        committed = group_pb2.CommittedOffset(topic=topic, partition=partition, offset=offset, metadata=group)
        self.groups.CommitOffsets(group_pb2.CommitOffsetsRequest(group=group, offsets=[committed]), timeout=30)

    def committed(self, group):
        """What a group has committed, sorted."""
        answer = self.groups.FetchOffsets(group_pb2.FetchOffsetsRequest(group=group), timeout=30)
        return sorted((at.topic, at.partition, at.offset, at.metadata) for at in answer.offsets)


def end_of_batches(data, offset):
    """The offset behind batches that must begin at `offset` and leave no gap."""
    position = 0
    while position < len(data):
        base, length, _ = BATCH_HEAD.unpack_from(data, position)
        if base != offset:
            raise RuntimeError(f"a batch at {base} came where {offset} was due")
        offset += LAST_OFFSET_DELTA.unpack_from(data, position + 23)[0] + 1
        position += 12 + length
    if position != len(data):
        raise RuntimeError("the last batch is cut short")
    return offset


class Filler:
    """Makes values that are all different and do not compress, the same for the same seed."""

    def __init__(self, seed, record_bytes=1000):
        self.random = random.Random(seed)
        self.noise = self.random.randbytes(4 * MIB)
        self.record_bytes = record_bytes
        self.count = 0

    def values(self, count):
        """The next `count` values."""
        made = []
        for _ in range(count):
            start = self.random.randrange(len(self.noise) - self.record_bytes)
            made.append(b"%d/" % self.count + self.noise[start : start + self.record_bytes])
            self.count += 1
        return made


def fill(log, topic, partitions, total_bytes, seed, batch=500):
    """Fills partitions evenly, each by a thread of its own; returns what went in, hashed by partition."""
    hashes = [hashlib.sha256() for _ in range(partitions)]
    failures = []

    def one(partition):
        filler, offset = Filler(seed + partition), 0
        try:
            while offset * filler.record_bytes < total_bytes // partitions:
                values = filler.values(batch)
                base = log.append(topic, values, partition)
                if base != offset:
                    raise RuntimeError(f"appended at {base} where {offset} was due")
                add_values(hashes[partition], offset, values)
                offset += len(values)
        except Exception as error:  # told to the caller, whose thread it is not
            failures.append(error)

    threads = [threading.Thread(target=one, args=[partition]) for partition in range(partitions)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
    return [sha.hexdigest() for sha in hashes]


def fill_more(log, topic, total_bytes, seed, batch=500):
    """Appends to partition 0, wherever it ends."""
    filler = Filler(seed)
    while filler.count * filler.record_bytes < total_bytes:
        log.append(topic, filler.values(batch))


def add_values(sha, offset, values):
    """Hashes values with their offsets."""
    for number, value in enumerate(values, offset):
        sha.update(b"%d:%d:" % (number, len(value)))
        sha.update(value)


def values_digest(log, topic, partition):
    """The hash of all values with their offsets from offset 0, as `fill` returns it."""
    sha, offset = hashlib.sha256(), 0
    while True:
        records = log.read(topic, offset, partition, form=log_pb2.FORM_RECORDS).records
        if not records:
            return sha.hexdigest()
        if records[0].offset != offset:
            raise RuntimeError(f"offset {records[0].offset} came where {offset} was due")
        add_values(sha, offset, [record.value for record in records])
        offset = records[-1].offset + 1


def reason_of(error):
    """(code, reason, metadata) of a failed call."""
    status = rpc_status.from_call(error)
    info = error_details_pb2.ErrorInfo()
    for detail in status.details if status else []:
        if detail.Unpack(info):
            return error.code().name, info.reason, dict(info.metadata)
    return error.code().name, "", {}


def manifests(store, prefix):
    """Every manifest below a prefix, by its key."""
    found = {}
    for key in store.keys(prefix + "/"):
        if key.endswith("/manifest"):
            head, body = store.read(key).split(b"\n", 1)
            if not head.startswith(b"comlog manifest 1 "):
                raise RuntimeError(f"{key} begins with {head!r}")
            found[key] = json.loads(body)
    return found


def object_stem(segment):
    """The name of an archived segment's objects without their ending."""
    return "{base_offset:020}-{end_offset:020}-{epoch}-{crc:08x}".format(**segment)


def named_keys(store, prefix):
    """The keys of all segment and state objects that some manifest names."""
    named = set()
    for key, manifest in manifests(store, prefix).items():
        folder = key.rsplit("/", 1)[0]
        for segment in manifest["segments"]:
            for ending in ("log", "index", "timeindex", "sums"):
                named.add(f"{folder}/{object_stem(segment)}.{ending}")
        if manifest["state"]:
            named.add("{}/state-{end_offset:020}-{epoch}-{crc:08x}".format(folder, **manifest["state"]))
    return named


def orphans(store, prefix):
    """Keys in the folders of partitions that no manifest names."""
    named = named_keys(store, prefix)
    in_partitions = {
        key for key in store.keys(prefix + "/topics/") if key.count("/") == prefix.count("/") + 4
    }
    return sorted(key for key in in_partitions - named if not key.endswith("/manifest"))


def missing(store, prefix):
    """Keys that a manifest names and that are not there."""
    return sorted(named_keys(store, prefix) - set(store.keys(prefix + "/")))


def wait_for(condition, seconds=60):
    """Whether a condition came true in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True
