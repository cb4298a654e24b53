"""Damage drill: whatever happens to one file at rest, no acknowledged record vanishes without a word.

Servers are filled and ended, with SIGTERM and with SIGKILL, with an archive and without. An image is
a copy of what one of them left in which one file (or folder) was damaged: a bit flipped, cut short,
overwritten with zeros, garbage appended, deleted, exchanged with another of its kind, or replaced by
an older copy of itself. Then a server is started on it, and every record that was acknowledged must
be there, unaltered and at its offset, or its loss must be reported: by an error of the read, by the
damaged ranges or the failure that `topic describe` shows, or by a line of the log that names it. An
offset that was acknowledged is never given again, a fenced partition stays fenced, commits of groups
do not go backwards in silence, and a producer id is not given out twice.

An image of an archive's objects is restored instead: exit 0 means that everything came back.

Not yet held, so tried with `--open` only, where it fails: two segments of the same base offset exchanged
between partitions, and an older copy of a manifest whose newer segments are all there.

Out of reach, and not tried: all files of a partition put back together to an earlier state.
"""

import argparse
import collections
import itertools
import os
import pathlib
import random
import re
import shutil
import sys
import tempfile
import traceback

import archived
import grpc
import harness
from archived import common_pb2, log_pb2, topic_pb2

TOPICS = {"orders": 2, "notes": 1, "small": 1}
# At this level an acknowledgement does not wait for the disk; a kill loses none of it all the same.
MEMORY = "notes"
TOKEN = 7
FENCED = ("small", 0)
TRIMMED = ("orders", 1)
GROUP = "readers"
GARBAGE_MAX = 5000


class Folder:
    """An archive in a folder of the local disk."""

    def __init__(self, folder):
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def url(self, prefix):
        return f"file://{self.folder}/{prefix}"

    def environment(self, _port=None):
        return {}


class Original:
    """What a server left behind, what it had acknowledged, and what its files were earlier."""

    def __init__(self, folder, seed, clean, with_archive):
        self.folder = folder
        self.clean = clean
        self.name = f"{'SIGTERM' if clean else 'SIGKILL'}, {'with' if with_archive else 'no'} archive"
        self.store = Folder(folder / "store") if with_archive else None
        self.acknowledged = collections.defaultdict(dict)
        self.producer_ids = set()
        self.token = None
        self.filler = archived.Filler(seed, record_bytes=4000)
        self.rng = random.Random(seed)
        server = self.server(folder)
        log = server.start()
        self.ids = {topic: self._create(log, topic, count) for topic, count in TOPICS.items()}
        self._fill(log)
        self._change(log, offset=20, token=TOKEN - 1)
        if with_archive:
            server.comlog("archive", "flush")
        shutil.copytree(folder / "data", folder / "older")
        if with_archive:
            shutil.copytree(folder / "store", folder / "older-store")
        self._fill(log)
        self._change(log, offset=40, token=TOKEN)
        if with_archive:
            server.comlog("archive", "flush")
            self.archived = {key: log.bounds(*key)[1] for key in self.acknowledged}
        self._fill(log, share=4)
        self.trimmed = log.bounds(*TRIMMED)[0]
        self.committed = log.committed(GROUP)
        server.stop() if clean else server.kill()

    def server(self, folder):
        """A server on a copy of this (or on the original, while it is made)."""
        if self.store:
            return Server(folder, Folder(folder / "store"), "ha", single_writer=True)
        return Server(folder, None, "")

    def _create(self, log, topic, partitions):
        level = common_pb2.DURABILITY_MEMORY if topic == MEMORY else common_pb2.DURABILITY_DURABLE
        return log.create(topic, partitions, durability=level)

    def _fill(self, log, share=1):
        """About 1.5 MiB into each partition of `orders`, less into the others."""
        for topic, partitions in TOPICS.items():
            for partition in range(partitions):
                batches = 96 if topic == "orders" else 12
                for _ in range(batches // share):
                    self._append(log, topic, partition)

    def _append(self, log, topic, partition):
        values = self.filler.values(self.rng.choice([1, 2, 8]))
        options = {"fencing_token": self.token} if (topic, partition) == FENCED and self.token else {}
        base = log.append(topic, values, partition, **options)
        self.acknowledged[topic, partition].update(enumerate(values, base))

    def _change(self, log, offset, token):
        log.logs.Fence(log_pb2.FenceRequest(topic=FENCED[0], partition=FENCED[1], token=token))
        self.token = token
        log.logs.Trim(log_pb2.TrimRequest(topic=TRIMMED[0], partition=TRIMMED[1], offset=offset))
        for partition in range(TOPICS["orders"]):
            log.commit(GROUP, "orders", offset + partition, partition)
        given = log.logs.InitProducerId(log_pb2.InitProducerIdRequest())
        self.producer_ids.add(given.producer_id)


class Server(archived.Archived):
    """One server, with or without an archive."""

    def __init__(self, folder, store, prefix, single_writer=False):
        super().__init__(folder, store or Folder(folder / "none"), prefix, single_writer=single_writer)
        self.archives = store is not None

    def start(self):
        if self.archives:
            return super().start()
        self.server = harness.Server(self.data_dir)
        return archived.Log(self.server.address)


# What may be damaged: a name, and which paths (below the data directory) it means.
KINDS = {
    "active segment": lambda files: files.segments(last=True),
    "sealed segment": lambda files: files.segments(last=False),
    "index": lambda files: files.matching(r"topics/.*\.index$"),
    "time index": lambda files: files.matching(r"topics/.*\.timeindex$"),
    "checkpoint": lambda files: files.matching(r"topics/.*/checkpoint$"),
    "small file of a partition": lambda files: files.small(),
    "topic metadata": lambda files: files.matching(r"meta/topic-[0-9a-f]{32}$"),
    "producer ids": lambda files: files.matching(r"meta/producer-ids$"),
    "small file of the server": lambda files: files.matching(r"meta/(?!topic-|producer-ids)"),
    "partition folder": lambda files: files.folders(),
}
ARCHIVE_KINDS = {
    "archived segment": lambda files: files.matching(r"\.log$"),
    "archived index": lambda files: files.matching(r"\.(index|timeindex|sums)$"),
    "manifest": lambda files: files.matching(r"/manifest$"),
    "archived state": lambda files: files.matching(r"/state-[^/]*$"),
    "topic object": lambda files: files.matching(r"topics/[0-9a-f]{32}(/topic|\.[a-z]+)?$"),
}


class Files:
    """The files below a folder, by their relative paths: in the same order for the same seed, so by the
    names of topics and not by their ids, which are random."""

    def __init__(self, root, ids):
        names = {topic_id: topic for topic, topic_id in ids.items()}
        paths = (path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file())
        kept = (path for path in paths if not path.endswith(("lock", ".tmp")))
        named = lambda path: re.sub(r"[0-9a-f]{32}", lambda found: names.get(found[0], "?"), path)
        self.paths = sorted(kept, key=named)

    def matching(self, pattern):
        return [path for path in self.paths if re.search(pattern, path)]

    def segments(self, last):
        by_folder = collections.defaultdict(list)
        for path in self.matching(r"topics/.*/\d{20}\.log$"):
            by_folder[path.rsplit("/", 1)[0]].append(path)
        found = (paths[-1:] if last else paths[:-1] for paths in by_folder.values())
        return list(itertools.chain.from_iterable(found))

    def small(self):
        """Beside segments, indexes and the checkpoint."""
        return self.matching(r"topics/[0-9a-f]+/\d+/(?!checkpoint$)(?!.*\.(log|index|timeindex)$)[^/]+$")

    def folders(self):
        paths = self.matching(r"topics/.*/\d{20}\.log$")
        return list(dict.fromkeys(path.rsplit("/", 1)[0] for path in paths))


def flip(path, rng, _others, _older):
    data = bytearray(path.read_bytes())
    if not data:
        return False
    # What was allocated ahead is no data: damage there would test nothing.
    end = len(data.rstrip(b"\0")) or len(data)
    data[rng.randrange(end)] ^= 1 << rng.randrange(8)
    path.write_bytes(data)
    return True


def truncate(path, rng, _others, _older):
    data = path.read_bytes()
    end = len(data.rstrip(b"\0"))
    if end == 0:
        return False
    path.write_bytes(data[: rng.randrange(end)])
    return True


def zero(path, rng, _others, _older):
    data = bytearray(path.read_bytes())
    end = len(data.rstrip(b"\0"))
    if end == 0:
        return False
    start = rng.randrange(end)
    stop = min(end, start + rng.choice([1, 512, 4096]))
    if not any(data[start:stop]):
        return False
    data[start:stop] = bytes(stop - start)
    path.write_bytes(data)
    return True


def garbage(path, rng, _others, _older):
    with open(path, "ab") as file:
        file.write(rng.randbytes(rng.randint(1, GARBAGE_MAX)))
    return True


def delete(path, _rng, _others, _older):
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    return True


def exchange(path, rng, others, _older):
    others = [other for other in others if other != path]
    if not others:
        return False
    other = rng.choice(others)
    aside = path.with_name(path.name + ".aside")
    path.rename(aside)
    other.rename(path)
    aside.rename(other)
    return True


def older(path, _rng, _others, older_path):
    if not older_path.is_file() or older_path.read_bytes() == path.read_bytes():
        return False
    shutil.copyfile(older_path, path)
    return True


DAMAGES = [flip, truncate, zero, garbage, delete, exchange, older]
# What passes in silence still: the list of segments with their checksums is what will see it.
OPEN = [("active segment", exchange), ("sealed segment", exchange), ("manifest", older)]


class Image:
    """A damaged copy of an original."""

    def __init__(self, original, folder, number):
        self.original = original
        self.folder = folder / f"image-{number}"
        self.folder.mkdir()
        shutil.copytree(original.folder / "data", self.folder / "data")
        if original.store:
            shutil.copytree(original.folder / "store", self.folder / "store")

    def damage(self, kind, how, rng, in_archive):
        """Whether there was something to damage; says what in `what`."""
        root = self.folder / ("store" if in_archive else "data")
        older_root = self.original.folder / ("older-store" if in_archive else "older")
        found = (ARCHIVE_KINDS if in_archive else KINDS)[kind](Files(root, self.original.ids))
        if not found or (kind == "partition folder" and how is not delete):
            return False
        path = rng.choice(found)
        self.what = f"{how.__name__} {path}"
        return how(root / path, rng, [root / other for other in found], older_root / path)

    def remove(self):
        shutil.rmtree(self.folder, ignore_errors=True)


class Findings:
    """What a started server says and holds, against what was acknowledged."""

    def __init__(self, original, server, log, text):
        self.original, self.server, self.log, self.text = original, server, log, text
        self.silent = []

    def all(self):
        """What is wrong: texts, none when all is well."""
        for topic, partitions in TOPICS.items():
            for partition in range(partitions):
                self.partition(topic, partition)
        self.commits()
        self.producers()
        return self.silent

    def is_logged(self, *words):
        """Whether a warning or an error of the log names one of the words."""
        lines = (line for line in self.text().splitlines() if re.search(r"\b(WARN|ERROR)\b", line))
        return any(word in line for line in lines for word in words)

    def partition(self, topic, partition):
        name = f"{topic}/{partition}"
        try:
            info = self.log.topics.DescribeTopic(topic_pb2.DescribeTopicRequest(name=topic), timeout=30)
        except grpc.RpcError as error:
            if not self.is_logged(self.original.ids[topic]):
                self.silent.append(f"{name}: {archived.reason_of(error)[:2]}, and no line names the topic")
            return
        info = info.partitions[partition]
        if info.failure:
            return
        found, reported = self.read(topic, partition, info.log_start_offset)
        reported += [range(at.start, at.end) for at in info.damaged]
        self.compare(name, topic, partition, info, found, reported)
        self.append(name, topic, partition)

    def read(self, topic, partition, offset):
        """The records there are, and the ranges whose loss a read reported."""
        found, reported = {}, []
        while True:
            try:
                fetched = self.log.read(topic, offset, partition, form=log_pb2.FORM_RECORDS)
            except grpc.RpcError as error:
                code, reason, details = archived.reason_of(error)
                if reason != "CORRUPT":
                    raise
                on = int(details.get("offset", offset))
                if on <= offset:
                    return found, reported + [range(offset, 1 << 62)]
                reported.append(range(offset, on))
                offset = on
                continue
            for record in fetched.records:
                found[record.offset] = record.value
            if fetched.next_offset == offset:
                return found, reported
            offset = fetched.next_offset

    def compare(self, name, topic, partition, info, found, reported):
        start = self.original.trimmed if (topic, partition) == TRIMMED else 0
        if info.log_start_offset < start and not self.is_logged(self.original.ids[topic]):
            self.silent.append(f"{name}: trimmed records are back from {info.log_start_offset}")
        acknowledged = self.original.acknowledged[topic, partition]
        altered = [at for at, value in acknowledged.items() if found.get(at, value) != value]
        if altered:
            self.silent.append(f"{name}: {len(altered)} records altered, the first at {altered[0]}")
        missing = [at for at in acknowledged if at >= start and at not in found]
        missing = [at for at in missing if not any(at in one for one in reported)]
        if missing:
            self.silent.append(f"{name}: {len(missing)} records missing without a word, the first at {missing[0]}")

    def append(self, name, topic, partition):
        """The next record must not take an offset that was acknowledged."""
        fenced = (topic, partition) == FENCED
        if fenced:
            try:
                self.log.append(topic, [b"unfenced"], partition)
                self.silent.append(f"{name}: takes an append without the token")
            except grpc.RpcError:
                pass
        try:
            base = self.log.append(topic, [b"next"], partition, **({"fencing_token": TOKEN} if fenced else {}))
        except grpc.RpcError as error:
            if not archived.reason_of(error)[1]:
                self.silent.append(f"{name}: append fails without a reason: {error.details()}")
            return
        end = max(self.original.acknowledged[topic, partition]) + 1
        if base < end:
            self.silent.append(f"{name}: offset {base} is given again, {end} is due")

    def commits(self):
        try:
            committed = self.log.committed(GROUP)
        except grpc.RpcError as error:
            if not archived.reason_of(error)[1]:
                self.silent.append(f"commits: {error.details()}, without a reason")
            return
        if committed != self.original.committed and not self.is_logged("offsets", "commit", "group"):
            self.silent.append(f"commits are {committed} instead of {self.original.committed}")

    def producers(self):
        try:
            given = self.log.logs.InitProducerId(log_pb2.InitProducerIdRequest(), timeout=30).producer_id
        except grpc.RpcError as error:
            self.silent.append(f"no producer id: {archived.reason_of(error)}")
            return
        if given in self.original.producer_ids:
            self.silent.append(f"producer id {given} is given out twice")


def check_started(image):
    """What is wrong with how a server starts on the image and what it then holds."""
    original, server = image.original, image.original.server(image.folder)
    try:
        log = server.start()
    except SystemExit:
        # Not to start at all is for what tells one directory from another, and says which file it is.
        told = re.search(r"format|lock|archive-writer|meta/", server.log_text())
        return [] if told else [f"the server does not start: {server.log_text()[-300:]}"]
    try:
        return list(Findings(original, server, log, server.log_text).all())
    finally:
        log.channel.close()
        server.kill()


def check_restored(image):
    """What is missing or altered after a restore that says nothing."""
    original, server = image.original, image.original.server(image.folder)
    shutil.rmtree(server.data_dir)
    restored = server.comlog("restore", "--from", server.url, "--to", str(server.data_dir), check=False)
    if restored.returncode != 0:
        return [] if restored.stderr.strip() else [f"restore ends with {restored.returncode} without a word"]
    wrong = []
    log = server.start()
    try:
        for key, values in original.acknowledged.items():
            start = original.trimmed if key == TRIMMED else 0
            held = log.records(*key)
            altered = [at for at, value in values.items() if held.get(at, value) != value]
            missing = [at for at in range(start, original.archived[key]) if at not in held]
            if altered or missing:
                wrong.append(f"{key}: {len(missing)} missing, {len(altered)} altered after a restore that ended with 0")
    except (grpc.RpcError, RuntimeError) as error:
        wrong.append(f"what was restored cannot be read: {error}")
    finally:
        log.channel.close()
        server.kill()
    return wrong


def cases(originals, rng, with_open):
    """Every original, kind and damage, in an order drawn by lot, over and over."""
    local = itertools.product(originals, KINDS, DAMAGES, [False])
    stored = itertools.product([original for original in originals if original.store], ARCHIVE_KINDS, DAMAGES, [True])
    chosen = [case for case in (*local, *stored) if with_open or case[1:3] not in OPEN]
    while True:
        rng.shuffle(chosen)
        yield from chosen


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    harness.Rounds.arguments(parser, 500, "image")
    parser.add_argument("--seed", type=int, default=int.from_bytes(os.urandom(4)))
    parser.add_argument("--open", action="store_true", help="also what is known to pass in silence")
    parser.add_argument("--kind", help="only what contains this word")
    args = parser.parse_args()
    print(f"seed {args.seed}")
    rng = random.Random(args.seed)
    folder = pathlib.Path(tempfile.mkdtemp(prefix="comlog-damage-"))
    checks = harness.Checks()
    try:
        originals = [
            Original(make(folder / f"original-{number}"), args.seed + number, clean, with_archive)
            for number, (clean, with_archive) in enumerate(itertools.product([True, False], [False, True]))
        ]
        drawn = (case for case in cases(originals, rng, args.open) if not args.kind or args.kind in case[1])
        for number in harness.Rounds(args):
            one_image(checks, folder, number, drawn, rng)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    sys.exit(checks.summary())


def one_image(checks, folder, number, drawn, rng):
    """The next case that there is something to damage for."""
    while True:
        original, kind, how, in_archive = next(drawn)
        image = Image(original, folder, number)
        try:
            if not image.damage(kind, how, rng, in_archive):
                continue
            try:
                wrong = check_restored(image) if in_archive else check_started(image)
            except Exception as error:  # the other images are worth trying all the same
                traceback.print_exc(file=sys.stdout)
                wrong = [repr(error)]
            checks.check(f"{original.name}: {kind}: {image.what}", not wrong, "; ".join(wrong))
            return
        finally:
            image.remove()


def make(folder):
    """A new folder."""
    folder.mkdir(parents=True)
    return folder


if __name__ == "__main__":
    main()
