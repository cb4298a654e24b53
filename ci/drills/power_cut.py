"""Power cut drill: what was acknowledged before the power went must be there afterwards.

kill -9 cannot see a missing sync, because the page cache survives it. So the data directory lies
on an ext4 file system of its own, on a loop device, mounted so that the kernel writes back
nothing by itself for minutes; then the file system is shut down under load (ioctl
EXT4_IOC_SHUTDOWN without flushing the journal), which drops what was never synced, exactly as a
power cut does. After a remount and a restart every record is read back and compared with the
acknowledgements: none may be lost, altered, doubled or re-numbered.

Only what was acknowledged before the cut began counts: while the file system is being shut down,
fdatasync itself can report success for pages that are lost, without any doing of comlog.

The same drill on a topic of memory durability must lose something: that shows that it can see.
"""

import argparse
import ctypes
import fcntl
import os
import pathlib
import random
import shutil
import subprocess
import sys
import tempfile
import threading
import time

import grpc
import harness

harness.generate_stubs()
from comlog.v1 import common_pb2, log_pb2, log_pb2_grpc, topic_pb2, topic_pb2_grpc  # noqa: E402

EXT4_IOC_SHUTDOWN = 0x8004587D
NO_LOG_FLUSH = 2
TOPIC = "power"
PRODUCERS = 8
IMAGE_BYTES = 512 << 20


def run(*command):
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


class Disk:
    """An ext4 file system in a file, which can lose its power."""

    def __init__(self, folder):
        self.image = folder / "disk.img"
        self.mount_point = folder / "mnt"
        self.mount_point.mkdir()
        with open(self.image, "wb") as image:
            image.truncate(IMAGE_BYTES)
        run("mkfs.ext4", "-q", str(self.image))
        self.mounted = False

    def mount(self):
        run("mount", "-o", "loop,commit=300", str(self.image), str(self.mount_point))
        self.mounted = True

    def cut(self):
        descriptor = os.open(self.mount_point, os.O_RDONLY)
        fcntl.ioctl(descriptor, EXT4_IOC_SHUTDOWN, ctypes.c_uint32(NO_LOG_FLUSH))
        os.close(descriptor)

    def unmount(self):
        """Waits while somebody (a killed server on its way out, a scanner of new disks) is in it."""
        deadline = time.monotonic() + 30
        while self.mounted:
            umount = subprocess.run(["umount", str(self.mount_point)], capture_output=True, text=True)
            self.mounted = umount.returncode != 0
            if self.mounted and time.monotonic() > deadline:
                sys.exit(f"cannot unmount: {umount.stderr.strip()}")
            if self.mounted:
                time.sleep(0.1)


class Producer(threading.Thread):
    """Appends batches of records of its own until the power goes, and notes what was acknowledged."""

    def __init__(self, address, number, seed):
        super().__init__(daemon=True)
        self.number = number
        self.random = random.Random(seed)
        self.channel = grpc.insecure_channel(address)
        self.stub = log_pb2_grpc.LogServiceStub(self.channel)
        self.acknowledged = {}
        self.running = True

    def run(self):
        count = 0
        while self.running:
            values = []
            for _ in range(self.random.choice([1, 1, 1, 5, 50])):
                noise = self.random.randbytes(self.random.choice([10, 100, 1000]))
                values.append(b"%d/%d/" % (self.number, count) + noise)
                count += 1
            records = [common_pb2.Record(value=value) for value in values]
            request = log_pb2.AppendRequest(topic=TOPIC, records=records)
            try:
                appended = self.stub.Append(request, timeout=5).appended
            except grpc.RpcError:
                return
            # Read after the answer came: what is noted was acknowledged while all was well.
            if not self.running:
                return
            for index, value in enumerate(values):
                self.acknowledged[appended.base_offset + index] = value


def read_all(address):
    """Every record of the topic, by offset; each offset must come once and in order."""
    with grpc.insecure_channel(address, [("grpc.max_receive_message_length", -1)]) as channel:
        stub = log_pb2_grpc.LogServiceStub(channel)
        found, offset = {}, 0
        while True:
            request = log_pb2.ReadRequest(
                topic=TOPIC, offset=offset, max_bytes=4 << 20, form=log_pb2.FORM_RECORDS
            )
            fetched = stub.Read(request, timeout=30).fetched
            for record in fetched.records:
                if record.offset < offset or record.offset in found:
                    sys.exit(f"offset {record.offset} came out of order or twice")
                found[record.offset] = record.value
            if fetched.next_offset == offset:
                return found
            offset = fetched.next_offset


def create_topic(address, durability):
    with grpc.insecure_channel(address) as channel:
        request = topic_pb2.CreateTopicRequest(
            name=TOPIC,
            partitions=1,
            if_not_exists=True,
            config=topic_pb2.TopicConfig(durability=durability, segment_bytes=4 << 20),
        )
        topic_pb2_grpc.TopicServiceStub(channel).CreateTopic(request, timeout=10)


def one_cut(disk, known, durability, seed):
    """Produces, cuts the power, restarts; returns (acknowledged, lost or altered, doubled)."""
    rng = random.Random(seed)
    server = harness.Server(disk.mount_point / "data")
    create_topic(server.address, durability)
    producers = [Producer(server.address, number, seed * 100 + number) for number in range(PRODUCERS)]
    for producer in producers:
        producer.start()
    time.sleep(rng.uniform(0.3, 1.5))
    for producer in producers:
        producer.running = False
    disk.cut()
    server.kill()
    for producer in producers:
        producer.join()
        producer.channel.close()
    disk.unmount()
    disk.mount()
    for producer in producers:
        for offset, value in producer.acknowledged.items():
            if known.setdefault(offset, value) != value:
                sys.exit(f"offset {offset} was acknowledged twice, for different records")
    server = harness.Server(disk.mount_point / "data")
    found = read_all(server.address)
    server.stop()
    wrong = [offset for offset, value in known.items() if found.get(offset) != value]
    doubled = len(found) - len(set(found.values()))
    acknowledged = len(known)
    # What survived although nobody was told is now part of the log, and must stay.
    known.clear()
    known.update(found)
    return acknowledged, len(wrong), doubled


def drill(rounds, durability, seed):
    name = common_pb2.Durability.Name(durability)
    folder = pathlib.Path(tempfile.mkdtemp(prefix="comlog-power-cut-"))
    disk = Disk(folder)
    lost_in_all = doubled_in_all = 0
    try:
        disk.mount()
        known = {}
        for cut in rounds:
            acknowledged, lost, doubled = one_cut(disk, known, durability, seed + cut)
            print(f"{name} cut {cut + 1}: {acknowledged} acknowledged, {lost} lost, {doubled} doubled", flush=True)
            lost_in_all += lost
            doubled_in_all += doubled
    finally:
        disk.unmount()
        shutil.rmtree(folder, ignore_errors=True)
    return lost_in_all, doubled_in_all


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    harness.Rounds.arguments(parser, 20, "power cut at durable")
    parser.add_argument("--memory-cuts", type=int, default=3, help="power cuts at memory (default 3)")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    rounds = harness.Rounds(args)
    lost, doubled = drill(rounds, common_pb2.DURABILITY_DURABLE, args.seed)
    lost_at_memory, _ = drill(range(args.memory_cuts), common_pb2.DURABILITY_MEMORY, args.seed)
    print(f"durable: {lost} lost, {doubled} doubled in {rounds.done} cuts; memory: {lost_at_memory} lost")
    failures = []
    if lost or doubled:
        failures.append("acknowledged durable records were lost or doubled")
    if lost_at_memory == 0:
        failures.append("nothing was lost at memory, so the drill proves nothing")
    for failure in failures:
        print(f"power-cut: {failure}", file=sys.stderr)
    print(f"{2 - len(failures)} passed, {len(failures)} failed")
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
