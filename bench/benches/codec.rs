//! Batches of 1,000 records of 100 B: encoded, and checked and decoded, with each codec.

use std::hint::black_box;

use comlog_bench::{NOW, Result, Values};
use comlog_record::{Compression, Limits, RecordBatch};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

const RECORDS: usize = 1_000;
const CODECS: [Compression; 5] = [
    Compression::None,
    Compression::Gzip,
    Compression::Snappy,
    Compression::Lz4,
    Compression::Zstd,
];

fn encode(criterion: &mut Criterion) {
    let values = Values::new(RECORDS, 100);
    let mut group = criterion.benchmark_group("encode");
    group.throughput(Throughput::Elements(RECORDS as u64));
    for codec in CODECS {
        group.bench_function(BenchmarkId::from_parameter(codec.name()), |bencher| {
            bencher.iter(|| black_box(&values).encode(NOW, codec).expect("they fit"));
        });
    }
    group.finish();
}

/// What a consumer does with the bytes of a batch; the values' bytes.
fn read(encoded: &bytes::Bytes) -> Result<usize> {
    let batch = RecordBatch::decode(&mut encoded.clone(), &Limits::DEFAULT)?;
    let mut bytes = 0;
    for record in &batch.records(&Limits::DEFAULT)? {
        bytes += record?.value.map_or(0, <[u8]>::len);
    }
    Ok(bytes)
}

fn decode(criterion: &mut Criterion) {
    let values = Values::new(RECORDS, 100);
    let mut group = criterion.benchmark_group("decode");
    group.throughput(Throughput::Elements(RECORDS as u64));
    for codec in CODECS {
        let encoded = values.encode(NOW, codec).expect("they fit");
        group.bench_function(BenchmarkId::from_parameter(codec.name()), |bencher| {
            bencher.iter(|| read(black_box(&encoded)).expect("it was just encoded"));
        });
    }
    group.finish();
}

criterion_group!(benches, encode, decode);
criterion_main!(benches);
