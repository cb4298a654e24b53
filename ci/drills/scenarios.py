"""How the archive drills run: scenarios one after the other, in a place with stores and servers."""

import argparse
import os
import pathlib
import shutil
import sys
import tempfile
import time
import traceback

import archived
import grpc
import harness
import stores
from archived import Archived


class Place:
    """Where the scenarios run: a folder, and stores that are started when first asked for."""

    def __init__(self, folder, args):
        self.folder, self.args = folder, args
        self.full, self.seed = args.full, args.seed
        self.stores = {}
        self.servers = []

    def garage(self):
        """The real S3 server."""
        return self.stores.setdefault("garage", None) or self._start("garage", stores.Garage)

    def moto(self):
        """The one that honours conditional writes."""
        return self.stores.setdefault("moto", None) or self._start("moto", stores.Moto)

    def _start(self, name, kind):
        self.stores[name] = kind(self.folder / name)
        return self.stores[name]

    def server(self, store, name, **options):
        """A server on an archive under a prefix of its name, unless another is given."""
        prefix = options.pop("prefix", name)
        options.setdefault("single_writer", isinstance(store, stores.Garage))
        self.servers.append(Archived(self.folder / name, store, prefix, **options))
        return self.servers[-1]

    def end_servers(self):
        """Kills what a scenario left."""
        for server in self.servers:
            server.kill()
        self.servers.clear()

    def end(self):
        """Ends everything and removes the folder."""
        self.end_servers()
        for store in self.stores.values():
            if store:
                store.kill()
        shutil.rmtree(self.folder, ignore_errors=True)


def sound(checks, name, store, server, prefix):
    """The archive is as it must be: verified, nothing missing, nothing beside it."""
    wrong = server.verify()
    checks.check(f"{name}: archive verify is clean", not wrong, wrong)
    missing = archived.missing(store, prefix)
    checks.check(f"{name}: every object that a manifest names is there", not missing, missing[:3])


def run(scenarios, place):
    """Runs scenarios one after the other; one that breaks off counts as a failed check."""
    checks = harness.Checks()
    try:
        for scenario in scenarios:
            print(f"-- {scenario.__name__}: {scenario.__doc__}", flush=True)
            started = time.monotonic()
            try:
                scenario(checks, place)
            except (Exception, SystemExit) as error:  # the others are worth running all the same
                traceback.print_exc(file=sys.stdout)
                detail = archived.reason_of(error) if isinstance(error, grpc.RpcError) else error
                checks.check(f"{scenario.__name__}: ran to its end", False, detail)
                for server in place.servers:
                    print(f"{server.data_dir}.log ends with:\n{server.log_text()[-1500:]}")
            place.end_servers()
            print(f"-- {scenario.__name__}: {time.monotonic() - started:.1f} s", flush=True)
    finally:
        place.end()
    return checks.summary()


def main(description, scenarios, rounds=None):
    """The command line of a drill; one whose scenarios repeat something says what a round is."""
    parser = argparse.ArgumentParser(description=description.splitlines()[0])
    parser.add_argument("--full", action="store_true", help="more of everything")
    parser.add_argument("--only", action="append", help="only scenarios of this name; may repeat")
    parser.add_argument("--seed", type=int, default=int.from_bytes(os.urandom(4)))
    if rounds:
        harness.Rounds.arguments(parser, *rounds)
    args = parser.parse_args()
    print(f"seed {args.seed}")
    chosen = [scenario for scenario in scenarios if not args.only or scenario.__name__ in args.only]
    if not chosen:
        sys.exit(f"there are: {', '.join(scenario.__name__ for scenario in scenarios)}")
    folder = pathlib.Path(tempfile.mkdtemp(prefix="comlog-archive-"))
    sys.exit(run(chosen, Place(folder, args)))
