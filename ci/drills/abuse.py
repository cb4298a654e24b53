"""Abuse drill: hostile and careless requests meet a clear error or a bound, never more memory.

200 connections with 100 idle streams each; a read of 2^32-1 bytes; a batch that claims 2^31-1
records; a gzip bomb, refused where contents are checked and an error to its reader where they are
not; a topic named ../x. After each the server still answers, and its memory stays bounded.
"""

import gzip
import pathlib
import shutil
import struct
import sys
import tempfile

import grpc
import harness
from google.rpc import error_details_pb2
from grpc_status import rpc_status

harness.generate_stubs()
from comlog.v1 import common_pb2, log_pb2, log_pb2_grpc, topic_pb2, topic_pb2_grpc  # noqa: E402

CONNECTIONS = 200
STREAMS = 100
MEMORY_MAX_KIB = 256 << 10
BOMB_BYTES = 1 << 30

CRC_TABLE = []
for index in range(256):
    for _ in range(8):
        index = (index >> 1) ^ (0x82F63B78 if index & 1 else 0)
    CRC_TABLE.append(index)


def crc32c(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc = CRC_TABLE[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    return crc ^ 0xFFFFFFFF


def batch(body, attributes=0, count=1, last_offset_delta=0):
    """A record batch with a right checksum around whatever is asked for."""
    covered = struct.pack(">hiqqqhii", attributes, last_offset_delta, 0, 0, -1, -1, -1, count) + body
    return struct.pack(">qiibI", 0, 9 + len(covered), 0, 2, crc32c(covered)) + covered


class Checks(harness.Checks):
    """The checks, each against one server."""

    def __init__(self, server):
        super().__init__()
        self.server = server

    def refused(self, name, code, reason, call):
        try:
            call()
        except grpc.RpcError as error:
            found = reason_of(error)
            self.check(name, error.code() == code and found == reason, f"({error.code().name}, {found})")
        else:
            self.check(name, False, "(was not refused)")

    def memory(self, name):
        used = self.server.rss_anon_kib()
        self.check(f"memory after {name}", used <= MEMORY_MAX_KIB, f"({used >> 10} MiB)")


def reason_of(error):
    """The reason in the status details, or in words why there is none."""
    status = rpc_status.from_call(error)
    info = error_details_pb2.ErrorInfo()
    for detail in status.details if status else []:
        if detail.Unpack(info):
            return info.reason
    return "no ErrorInfo"


def idle_streams(checks, address):
    """Every stream of every connection is open at once, or was refused."""
    request = log_pb2.TailRequest(partitions=[log_pb2.TailStart(topic="plain")])
    # Each channel its own connection, or gRPC would share one.
    options = [("grpc.use_local_subchannel_pool", 1)]
    channels = [grpc.insecure_channel(address, options) for _ in range(CONNECTIONS)]
    calls = []
    for channel in channels:
        stub = log_pb2_grpc.LogServiceStub(channel)
        calls += [stub.Tail(request, timeout=60) for _ in range(STREAMS)]
    opened, refused = 0, {}
    for call in calls:
        try:
            next(call)
            opened += 1
        except grpc.RpcError as error:
            key = (error.code().name, reason_of(error))
            refused[key] = refused.get(key, 0) + 1
    checks.check(
        "idle streams are open or refused with RESOURCE_EXHAUSTED",
        opened > 0 and all(code == "RESOURCE_EXHAUSTED" for code, _ in refused),
        f"({opened} open, refused: {refused})",
    )
    checks.memory(f"{CONNECTIONS} connections with {STREAMS} streams")
    for channel in channels:
        channel.close()


def drill(checks, address):
    channel = grpc.insecure_channel(address, [("grpc.max_receive_message_length", -1)])
    log = log_pb2_grpc.LogServiceStub(channel)
    topics = topic_pb2_grpc.TopicServiceStub(channel)
    code = grpc.StatusCode

    def append(topic, batches):
        return log.AppendBatches(log_pb2.AppendBatchesRequest(topic=topic, batches=batches), timeout=60)

    def append_one(topic, batches):
        """The error of the single batch, as (code, reason)."""
        try:
            error = append(topic, batches).results[0].error
        except grpc.RpcError as error:
            return error.code().value[0], reason_of(error)
        return error.code, common_pb2.Reason.Name(error.reason).removeprefix("REASON_")

    topics.CreateTopic(topic_pb2.CreateTopicRequest(name="plain"), timeout=10)
    full = topic_pb2.TopicConfig(validation=common_pb2.VALIDATION_FULL)
    topics.CreateTopic(topic_pb2.CreateTopicRequest(name="full", config=full), timeout=10)

    for name in ["../x", "..", ".", "", "a/b", "x" * 250, "a\0b"]:
        invalid = code.INVALID_ARGUMENT, "INVALID_TOPIC_NAME"
        create = topic_pb2.CreateTopicRequest(name=name)
        checks.refused(f"topic {name[:8]!r} created", *invalid, lambda: topics.CreateTopic(create, timeout=10))
        request = log_pb2.AppendRequest(topic=name, records=[common_pb2.Record(value=b"x")])
        checks.refused(f"topic {name[:8]!r} appended to", *invalid, lambda: log.Append(request, timeout=10))

    for _ in range(40):
        request = log_pb2.AppendRequest(topic="plain", records=[common_pb2.Record(value=b"v" * 1_000_000)])
        log.Append(request, timeout=60)
    request = log_pb2.ReadRequest(topic="plain", max_bytes=2**32 - 1)
    size = log.Read(request, timeout=60).ByteSize()
    checks.check("a read of 2^32-1 bytes is clamped", 0 < size < 40_000_000, f"({size} bytes)")
    checks.memory("the large read")

    invalid = (code.INVALID_ARGUMENT.value[0], "INVALID_RECORD_BATCH")
    claims = batch(b"\x0e\0\0\0\1\1\0", count=2**31 - 1, last_offset_delta=2**31 - 2)
    checks.check("2^31-1 claimed records are refused", append_one("plain", claims) == invalid)
    packed = batch(gzip.compress(b"\0"), attributes=1, count=2**31 - 1, last_offset_delta=2**31 - 2)
    found = append_one("plain", packed)
    checks.check("the same, compressed", found[0] == invalid[0], f"({found})")
    checks.memory("the claims")

    bomb = batch(gzip.compress(bytes(BOMB_BYTES)), attributes=1)
    found = append_one("full", bomb)
    checks.check("a gzip bomb is refused where contents are checked", found[0] == invalid[0], f"({found})")
    offset = append("plain", bomb).results[0].appended.base_offset
    request = log_pb2.ReadRequest(topic="plain", offset=offset, form=log_pb2.FORM_RECORDS)
    checks.refused("a gzip bomb read", code.DATA_LOSS, "CORRUPT", lambda: log.Read(request, timeout=60))
    after = log_pb2.AppendRequest(topic="plain", records=[common_pb2.Record(value=b"after")])
    log.Append(after, timeout=10)
    request = log_pb2.ReadRequest(topic="plain", offset=offset + 1, form=log_pb2.FORM_RECORDS)
    records = log.Read(request, timeout=10).fetched.records
    checks.check("reading goes on behind the bomb", [record.value for record in records] == [b"after"])
    checks.memory("the bombs")

    huge = log_pb2.AppendRequest(topic="plain", records=[common_pb2.Record(value=bytes(64 << 20))])
    try:
        log.Append(huge, timeout=60)
        checks.check("a 64 MiB request is refused", False)
    except grpc.RpcError as error:
        allowed = (code.OUT_OF_RANGE, code.RESOURCE_EXHAUSTED, code.INVALID_ARGUMENT)
        checks.check("a 64 MiB request is refused", error.code() in allowed, f"({error.code().name})")
    checks.memory("the huge request")

    idle_streams(checks, address)
    stands = log.ListOffsets(log_pb2.ListOffsetsRequest(queries=[log_pb2.OffsetQuery(topic="plain")]), timeout=30)
    checks.check("the server still answers", stands.offsets[0].offset == offset + 2)
    channel.close()


def main():
    folder = pathlib.Path(tempfile.mkdtemp(prefix="comlog-abuse-"))
    server = harness.Server(folder / "data")
    checks = Checks(server)
    try:
        drill(checks, server.address)
        server.stop()
    finally:
        if server.process.poll() is None:
            server.kill()
        shutil.rmtree(folder, ignore_errors=True)
    sys.exit(checks.summary())


if __name__ == "__main__":
    main()
