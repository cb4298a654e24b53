"""The original's API: a client generated from its proto by grpcio makes all seven calls."""

import pathlib
import shutil
import sys
import tempfile

import grpc
import harness

harness.generate_stubs()
from api import comlog_pb2, comlog_pb2_grpc  # noqa: E402
from google.protobuf import empty_pb2  # noqa: E402

SECONDS = 10
failures = []
passed = 0


def check(name, found, expected):
    global passed
    if found == expected:
        passed += 1
        print(f"ok: {name}")
    else:
        failures.append(name)
        print(f"FAILED: {name}: {found!r}, expected {expected!r}")


def refusal(call, *args):
    """The code a call is refused with."""
    try:
        call(*args, timeout=SECONDS)
    except grpc.RpcError as error:
        return error.code()
    return None


def record(data):
    return comlog_pb2.Record(data=data)


def batch(*datas):
    return comlog_pb2.BatchRecords(batch=[record(data) for data in datas])


def metadata(stub):
    found = stub.GetMetaData(empty_pb2.Empty(), timeout=SECONDS)
    return found.oldestOffset, found.lastOffset


def read(stub, offset):
    found = stub.Read(comlog_pb2.Offset(value=offset), timeout=SECONDS)
    return found.record, found.nbrOfReadBytes


def calls(stub):
    """Each call once, its result and its errors; the log starts empty."""
    out_of_range = grpc.StatusCode.OUT_OF_RANGE
    check("an empty log's metadata", metadata(stub), (0, 0))
    check("the newest record of an empty log", refusal(stub.Read, comlog_pb2.Offset(value=-1)), out_of_range)

    found = stub.Append(record(b"first"), timeout=SECONDS)
    check("Append", (found.offset, found.nbrOfStoredBytes), (0, 13))

    found = stub.BatchAppend(batch(b"second", b"", b"fourth"), timeout=SECONDS).response
    answers = [(one.index, one.resp.offset, one.resp.nbrOfStoredBytes) for one in found]
    check("BatchAppend keeps the order", answers, [(0, 1, 14), (1, 2, 8), (2, 3, 14)])

    found = list(stub.StreamBatchAppend(batch(b"fifth", b"sixth"), timeout=SECONDS))
    answers = [(one.index, one.resp.offset, one.resp.nbrOfStoredBytes, one.errorMsg) for one in found]
    check("StreamBatchAppend keeps the order", answers, [(0, 4, 13, ""), (1, 5, 13, "")])

    check("Read", read(stub, 1), (b"second", 14))
    check("Read of an empty record", read(stub, 2), (b"", 8))
    check("Read of the newest", read(stub, -1), (b"sixth", 13))
    check("Read behind the end", refusal(stub.Read, comlog_pb2.Offset(value=6)), out_of_range)
    check(
        "Read below -1",
        refusal(stub.Read, comlog_pb2.Offset(value=-2)),
        grpc.StatusCode.INVALID_ARGUMENT,
    )

    for kind in comlog_pb2.IndexFlushSyncType.Type.values():
        request = comlog_pb2.IndexFlushSyncType(value=kind)
        check(f"Flush {kind}", stub.Flush(request, timeout=SECONDS), empty_pb2.Empty())

    check("GetMetaData", metadata(stub), (0, 5))
    size = stub.GetMetaData(empty_pb2.Empty(), timeout=SECONDS).segmentsSize
    check("GetMetaData has a size", size > 0, True)

    # Everything is in the active segment, which is not wholly older than any offset.
    answer = stub.CollectSegments(comlog_pb2.CollectOffset(value=3), timeout=SECONDS)
    check("CollectSegments", answer, empty_pb2.Empty())
    check("CollectSegments keeps what is not wholly older", metadata(stub)[1], 5)
    check("the record asked to be kept is there", read(stub, 3), (b"fourth", 14))


def collect(stub, appended):
    """Segments that are wholly older than an offset go, the others stay."""
    for _ in range(appended):
        stub.BatchAppend(batch(*[bytes(100_000)] * 8), timeout=SECONDS)
    _, last = metadata(stub)
    wanted = last - 4
    stub.CollectSegments(comlog_pb2.CollectOffset(value=wanted), timeout=SECONDS)
    oldest, still_last = metadata(stub)
    check("CollectSegments deletes old segments", 0 < oldest <= wanted, True)
    check("CollectSegments leaves the end alone", still_last, last)
    check("Read below the oldest", refusal(stub.Read, comlog_pb2.Offset(value=0)), grpc.StatusCode.OUT_OF_RANGE)
    check("Read of the oldest", read(stub, oldest)[1] > 0, True)


def main():
    folder = pathlib.Path(tempfile.mkdtemp(prefix="comlog-legacy-"))
    server = harness.Server(folder / "data", "--set", "topic_defaults.segment_bytes=1MiB")
    try:
        with grpc.insecure_channel(server.address) as channel:
            stub = comlog_pb2_grpc.ComLogRpcStub(channel)
            calls(stub)
            collect(stub, 6)
        server.stop()
    finally:
        if server.process.poll() is None:
            server.kill()
        shutil.rmtree(folder, ignore_errors=True)
    print(f"{passed} passed, {len(failures)} failed")
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
