"""Archive outage drill: the store goes away under load; appends must not notice, and all is archived later.

Producers append at a steady rate while the store is there, then while it is gone, then while the
backlog drains. The latency of appends is shown side by side, with the spread of the windows of the
first phase as the measure of noise. It is shown and not judged, since a busy machine would lie.
"""

import threading
import time

import archived
import fault_proxy
import grpc
import scenarios

PARTITIONS = 4
BATCH = 10
PERIOD_SECONDS = 0.02
WINDOWS = 6
DRAIN_SECONDS = 120


class Load:
    """One steady producer for each partition; notes (start, latency) of every append."""

    def __init__(self, log, seed):
        self.log, self.seed = log, seed
        self.running = True
        self.latencies, self.failures = [], []
        self.ends = [0] * PARTITIONS
        self.threads = [threading.Thread(target=self._run, args=[at], daemon=True) for at in range(PARTITIONS)]
        for thread in self.threads:
            thread.start()

    def _run(self, partition):
        filler = archived.Filler(self.seed + partition)
        due = time.monotonic() + partition * PERIOD_SECONDS / PARTITIONS
        while self.running:
            time.sleep(max(0, due - time.monotonic()))
            due = max(due + PERIOD_SECONDS, time.monotonic())
            values = filler.values(BATCH)
            started = time.monotonic()
            try:
                self.log.append("load", values, partition)
            except grpc.RpcError as error:
                self.failures.append(archived.reason_of(error))
                return
            self.latencies.append((started, time.monotonic() - started))
            self.ends[partition] += BATCH

    def stop(self):
        """Ends the load."""
        self.running = False
        for thread in self.threads:
            thread.join()

    def between(self, start, end):
        """The latencies of appends begun in a span of time, sorted."""
        return sorted(took for at, took in list(self.latencies) if start <= at < end)


def milliseconds(latencies, fraction):
    """A quantile, for people."""
    at = min(len(latencies) - 1, int(len(latencies) * fraction))
    return f"{latencies[at] * 1000:8.2f}" if latencies else "       -"


def outage(checks, place, server, name, take_away, give_back):
    """Load before, during and after; `take_away` and `give_back` are what happens to the store."""
    seconds = 60 if place.full else 6
    log = server.start()
    topic = log.create("load", PARTITIONS)
    load = Load(log, place.seed)
    time.sleep(2)  # the first appends open files and connections
    start = time.monotonic()
    time.sleep(seconds)
    gone = time.monotonic()
    take_away()
    time.sleep(seconds)
    backlog = server.metric("comlog_archive_backlog_segments")
    oldest = server.metric("comlog_archive_oldest_unarchived_seconds")
    back = time.monotonic()
    give_back()
    drained = archived.wait_for(lambda: server.metric("comlog_archive_backlog_segments") <= PARTITIONS, DRAIN_SECONDS)
    took = time.monotonic() - back
    time.sleep(max(0, seconds - took))
    load.stop()
    end = time.monotonic()
    report(name, load, [("store there", start, gone), ("store gone", gone, back), ("store back", back, end)])
    checks.check(f"{name}: no append failed", not load.failures, load.failures[:3])
    checks.check(f"{name}: the backlog grew", backlog > PARTITIONS, f"{backlog:.0f} segments, {oldest:.0f} s old")
    checks.check(f"{name}: and drained", drained, f"in {took:.1f} s")
    server.comlog("archive", "flush")
    checks.check(f"{name}: local files go", server.await_trimmed(topic))
    found = [log.digest("load", partition, start=0)[2] for partition in range(PARTITIONS)]
    checks.check(f"{name}: every record is there once", found == load.ends, (found, load.ends))
    checks.check(f"{name}: archive verify is clean", not server.verify())


def report(name, load, phases):
    """Latencies side by side."""
    load_is = f"{BATCH} records of 1 kB every {PERIOD_SECONDS * 1000:.0f} ms on {PARTITIONS} partitions"
    print(f"{name}: append latency in ms, {load_is}")
    print(f"  {'':12}  appends       p50       p99      most   p99 of {WINDOWS} windows")
    for phase, start, end in phases:
        all_of = load.between(start, end)
        width = (end - start) / WINDOWS
        windows = [load.between(start + at * width, start + (at + 1) * width) for at in range(WINDOWS)]
        p99s = " ".join(milliseconds(window, 0.99).strip() for window in windows)
        shown = "  ".join(milliseconds(all_of, fraction) for fraction in (0.5, 0.99, 1))
        print(f"  {phase:12}  {len(all_of):7}  {shown}   {p99s}", flush=True)


def killed(checks, place):
    """The store's process is killed, and started again later."""
    store = place.garage()
    outage(checks, place, place.server(store, "killed"), "killed", store.kill, store.start)


def hanging(checks, place):
    """The store takes requests and never answers them."""
    store = place.garage()
    proxy = fault_proxy.FaultProxy(store.port)
    server = place.server(store, "hanging", port=proxy.port, settings={"archive.request_timeout_ms": 3000})
    outage(checks, place, server, "hanging", lambda: proxy.add(fault_proxy.HANG), proxy.clear)
    proxy.stop()


if __name__ == "__main__":
    scenarios.main(__doc__, [killed, hanging])
