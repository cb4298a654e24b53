"""What the drills share: a real comlog server as a child process, and gRPC stubs for it.

The stubs are generated from proto/ by grpcio-tools, an implementation of gRPC that shares no
code with comlog. Run a drill through its shell script, which provides the packages; one that
needs no stubs needs no packages.
"""

import atexit
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]


def generate_stubs():
    """Generates the stubs into a folder of their own and makes them importable."""
    from grpc_tools import protoc

    out = tempfile.mkdtemp(prefix="comlog-stubs-")
    protos = ROOT / "proto"
    files = [str(path.relative_to(protos)) for path in protos.rglob("*.proto")]
    include = pathlib.Path(protoc.__file__).parent / "_proto"
    arguments = ["protoc", f"-I{protos}", f"-I{include}", f"--python_out={out}", f"--grpc_python_out={out}"]
    if protoc.main(arguments + files) != 0:
        sys.exit("protoc failed")
    sys.path.insert(0, out)
    atexit.register(shutil.rmtree, out, ignore_errors=True)


def binary():
    """The comlog binary under test, named by COMLOG_BIN."""
    path = os.environ.get("COMLOG_BIN")
    if not path or not os.access(path, os.X_OK):
        sys.exit("COMLOG_BIN must name the comlog binary; `cargo xtask drill NAME` sets it")
    return path


class Rounds:
    """How often a drill repeats what it does: a share of time, and a count that must be reached.

    The long form, `cargo xtask drill NAME --rounds N`, goes N rounds. In the tests it is
    `--seconds S --least M`: rounds until S seconds have passed, but never fewer than M.
    """

    @staticmethod
    def arguments(parser, default, what):
        """Adds the options; a round is one `what`."""
        parser.add_argument("--rounds", type=int, default=default, help=f"{what}s (default {default})")
        parser.add_argument("--seconds", type=float, help="stop after so many seconds instead")
        parser.add_argument("--least", type=int, default=1, help=f"with --seconds: {what}s all the same")

    def __init__(self, args, share=1.0):
        """For the drill as a whole, or for one part that gets this share of it."""
        self.seconds = None if args.seconds is None else args.seconds * share
        self.least = args.least
        self.most = args.rounds
        self.done = 0

    def __iter__(self):
        """The number of each round, from 0 on."""
        began = time.monotonic()
        while self._goes_on(time.monotonic() - began):
            yield self.done
            self.done += 1

    def _goes_on(self, passed):
        if self.seconds is None:
            return self.done < self.most
        return self.done < self.least or passed < self.seconds


class Checks:
    """Counts what held, and says what did not."""

    def __init__(self):
        self.passed = self.failed = 0

    def check(self, name, good, detail=""):
        """Notes one thing that must hold."""
        self.passed += bool(good)
        self.failed += not good
        print(f"{'ok' if good else 'FAILED'}: {name} {detail}".rstrip(), flush=True)
        return bool(good)

    def summary(self):
        """Prints the closing line; the exit code of the drill."""
        print(f"{self.passed} passed, {self.failed} failed")
        return 1 if self.failed else 0


class Server:
    """`comlog serve` on a free port, ended by its process id."""

    def __init__(self, data_dir, *args, port=0, environment=None):
        self.log = open(f"{data_dir}.log", "ab")
        command = [binary(), "serve", "--data-dir", str(data_dir), "--listen", f"127.0.0.1:{port}", *args]
        environment = {**os.environ, **(environment or {})}
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=self.log, env=environment)
        ready = self.process.stdout.readline().decode()
        if not ready.startswith("comlog ready http"):
            self.process.wait()
            sys.exit(f"the server did not start, see {data_dir}.log: {ready!r}")
        self.address = ready.split("//")[1].strip()
        self.port = int(self.address.rsplit(":", 1)[1])

    def kill(self):
        """SIGKILL, as a crash would."""
        self.process.kill()
        self.process.wait()
        self.log.close()

    def stop(self):
        """SIGTERM, and waits for the end."""
        self.process.terminate()
        code = self.process.wait(timeout=60)
        self.log.close()
        if code != 0:
            sys.exit(f"the server ended with {code} on SIGTERM")

    def rss_anon_kib(self):
        """Memory of the process beside the page cache, in KiB."""
        for line in open(f"/proc/{self.process.pid}/status"):
            if line.startswith("RssAnon"):
                return int(line.split()[1])
        sys.exit("no RssAnon in /proc")
