"""Record batches as kafka-python, an independent implementation, writes and reads them.

    interop.py make DIR    writes the golden files (done once; they are committed)
    interop.py check DIR   reads the batches that comlog's example emit_batches wrote

The same records are spelled out in tests/common/golden.rs. requirements.txt has the versions.
"""

import pathlib
import sys

from kafka.codec import snappy_encode
from kafka.record.default_records import DefaultRecordBatch, DefaultRecordBatchBuilder
from kafka.record.memory_records import MemoryRecords

CODECS = ["none", "gzip", "snappy", "lz4", "zstd"]
START = 1_700_000_000_000
# Producer id, epoch, base sequence.
PRODUCERS = {"few": (4_000, 7, 2**31 - 3), "many": (-1, -1, -1)}


def few():
    """Absent and empty, repeated headers, bytes that are no text, time going back."""
    hello = b"hello " * 40
    headers = [("trace", b"abc"), ("trace", b""), ("", None), ("ключ", b"\x00\xff")]
    return [
        (START, b"user-1", hello, headers),
        (START + 5, None, b"", []),
        (START - 20, b"", None, []),
        (4_102_444_800_000, "ключ".encode(), bytes(range(256)), []),
        (START, b"user-1", hello, []),
    ]


def many():
    """More than one block of every codec."""
    return [
        (
            START + 3 * i,
            b"key-%d" % (i % 17),
            b"record %d of many, squared %d" % (i, i * i),
            [("hundred", b"%d" % i)] if i % 100 == 0 else [],
        )
        for i in range(1_500)
    ]


RECORDS = {"few": few(), "many": many()}


def build(name, codec):
    builder = DefaultRecordBatchBuilder(2, codec, False, *PRODUCERS[name], 1 << 20)
    for offset, record in enumerate(RECORDS[name]):
        assert builder.append(offset, *record), "the batch is full"
    batch = bytes(builder.build())
    assert DefaultRecordBatch(batch).compression_type == codec, "left uncompressed"
    return batch


def raw_snappy(batch):
    """The same batch, its xerial framing taken away, as some clients write it."""
    plain = DefaultRecordBatch(batch)
    plain._maybe_uncompress()
    builder = DefaultRecordBatchBuilder(2, 2, False, *PRODUCERS["few"], 1 << 20)
    for offset, record in enumerate(RECORDS["few"]):
        builder.append(offset, *record)
    body = snappy_encode(bytes(plain._buffer), xerial_compatible=False)
    builder._buffer[builder.header_size_in_bytes() :] = body
    builder.write_header()
    return bytes(builder._buffer)


def make(folder):
    for name in RECORDS:
        for codec, codec_name in enumerate(CODECS):
            (folder / f"{name}.{codec_name}").write_bytes(build(name, codec))
    raw = raw_snappy((folder / "few.snappy").read_bytes())
    (folder / "few-raw.snappy").write_bytes(raw)


def check_batch(batch, name, codec, base_offset):
    assert batch.validate_crc(), "its CRC is wrong"
    assert batch.base_offset == base_offset, f"its base offset is {batch.base_offset}"
    assert batch.compression_type == codec, f"its codec is {batch.compression_type}"
    producer = (batch.producer_id, batch.producer_epoch, batch.base_sequence)
    assert producer == PRODUCERS[name], f"its producer is {producer}"
    records = list(batch)
    expected = RECORDS[name]
    assert len(records) == len(expected), f"it has {len(records)} records"
    for index, (record, fields) in enumerate(zip(records, expected)):
        found = (record.timestamp, record.key, record.value, record.headers)
        assert found == fields, f"record {index} is {found}, not {fields}"
        assert record.offset == base_offset + index, f"its offset is {record.offset}"


def check(folder):
    passed = failed = 0
    for name in RECORDS:
        for codec, codec_name in enumerate(CODECS):
            batches = MemoryRecords((folder / f"{name}.{codec_name}").read_bytes())
            # Each file holds the batch twice, the second at offset 1,000,000.
            for base_offset in (0, 1_000_000):
                try:
                    batch = batches.next_batch()
                    assert batch is not None, "there is no batch"
                    check_batch(batch, name, codec, base_offset)
                    passed += 1
                except Exception as error:
                    print(f"{name}.{codec_name} at {base_offset}: {error!r}")
                    failed += 1
            if batches.has_next() or batches.valid_bytes() != batches.size_in_bytes():
                print(f"{name}.{codec_name}: bytes behind the batches")
                failed += 1
    print(f"kafka-python read {passed} of {passed + failed} batches that comlog wrote")
    print(f"{passed} passed, {failed} failed")
    return failed == 0


def main():
    if len(sys.argv) != 3 or sys.argv[1] not in ("make", "check"):
        sys.exit(__doc__)
    folder = pathlib.Path(sys.argv[2])
    if sys.argv[1] == "make":
        make(folder)
    elif not check(folder):
        sys.exit(1)


main()
