"""Crash drill on real input: what goes in comes out, byte for byte, whatever happens between.

The text of `apt-cache dumpavail` (over a million lines after `apt-get update`) goes into a topic
of one partition with `comlog produce` and comes out with `comlog consume`, once for each codec.
Meanwhile the server is killed with SIGKILL at random places of the input and started again. The
producer must notice, retry, and neither lose, double nor reorder a line.
"""

import argparse
import os
import pathlib
import random
import shutil
import subprocess
import sys
import tempfile
import threading
import time

import harness

CODECS = ["none", "gzip", "snappy", "lz4", "zstd"]
PIECE_BYTES = 64 << 10


def input_text(lines):
    """The first `lines` lines (0: all) of what apt knows of packages."""
    command = ["apt-cache", "dumpavail"]
    text = subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout
    if text.count(b"\n") < (lines or 1_000_000):
        subprocess.run(["apt-get", "update"], check=True, stdout=sys.stderr)
        text = subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout
    if not lines:
        return text
    return b"".join(text.splitlines(keepends=True)[:lines])


class Victim:
    """A server that can be killed and started again on the same port and data."""

    def __init__(self, folder):
        self.data_dir = folder / "data"
        self.server = harness.Server(self.data_dir)
        self.port = self.server.port
        self.killer = None

    def kill_in(self, pause):
        """Kills and restarts the server after a pause, while the caller goes on."""
        self.join()
        self.killer = threading.Thread(target=self._kill_and_restart, args=[pause])
        self.killer.start()

    def join(self):
        """Waits until the last restart is done."""
        if self.killer:
            self.killer.join()

    def _kill_and_restart(self, pause):
        time.sleep(pause)
        self.server.kill()
        self.server = harness.Server(self.data_dir, port=self.port)

    def command(self, *words):
        url = f"http://127.0.0.1:{self.port}"
        return [harness.binary(), "--server", url, *words]


def feed(pipe, text, kill_at, rng, victim):
    """Writes the text; at each position of `kill_at` the server dies a moment later."""
    view = memoryview(text)
    for start in range(0, len(text), PIECE_BYTES):
        pipe.write(view[start : start + PIECE_BYTES])
        if kill_at and start >= kill_at[0]:
            kill_at.pop(0)
            victim.kill_in(rng.uniform(0, 0.05))
    pipe.close()


def one_codec(folder, text, codec, kills, seed):
    """Whether what came out is what went in."""
    rng = random.Random(seed)
    victim = Victim(folder)
    try:
        subprocess.run(victim.command("topic", "create", "dump", "--partitions", "1"), check=True, stdout=sys.stderr)
        started = time.monotonic()
        produce = subprocess.Popen(
            victim.command("produce", "dump", "--compression", codec),
            stdin=subprocess.PIPE,
            stdout=sys.stderr,
        )
        positions = sorted(rng.randrange(len(text)) for _ in range(kills))
        try:
            feed(produce.stdin, text, positions, rng, victim)
        except BrokenPipeError:
            print(f"{codec}: produce ended before it had read its input")
        if produce.wait(timeout=300) != 0:
            print(f"{codec}: produce ended with {produce.returncode}")
            return False
        produced = time.monotonic()
        victim.join()
        with open(folder / "out", "wb") as out:
            subprocess.run(victim.command("consume", "dump"), check=True, stdout=out)
        took = time.monotonic() - produced
        same = (folder / "out").read_bytes() == text
        print(
            f"{codec}: {len(text)} bytes, {kills} kills, produced in {produced - started:.1f} s, "
            f"consumed in {took:.1f} s: {'identical' if same else 'DIFFERENT'}",
            flush=True,
        )
        return same
    finally:
        victim.join()
        victim.server.kill()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--lines", type=int, default=0, help="only so many lines (default: all)")
    parser.add_argument("--kills", type=int, default=10, help="kills for each codec (default 10)")
    parser.add_argument("--codec", action="append", choices=CODECS, help="only this codec; may repeat")
    harness.Rounds.arguments(parser, len(CODECS), "codec")
    parser.add_argument("--seed", type=int, default=int.from_bytes(os.urandom(4)))
    args = parser.parse_args()
    print(f"seed {args.seed}")
    text = input_text(args.lines)
    newlines = text.count(b"\n")
    print(f"{newlines} lines")
    passed = failed = 0
    codecs = args.codec or CODECS
    for number in harness.Rounds(args):
        codec = codecs[number % len(codecs)]
        folder = pathlib.Path(tempfile.mkdtemp(prefix="comlog-dumpavail-"))
        try:
            good = one_codec(folder, text, codec, args.kills, args.seed + number)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        passed += good
        failed += not good
    print(f"{passed} passed, {failed} failed")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
