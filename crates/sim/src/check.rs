//! Compares what is read with the model.

use comlog_log::{Durability, Fetched, Positions, ReadError};
use comlog_record::{BatchStream, DecodeError, Limits, Offset};

use crate::drive::Broken;
use crate::model::Model;

/// Fails with a broken promise unless the condition holds.
macro_rules! ensure {
    ($holds:expr, $($words:tt)+) => {
        if !$holds {
            return Err(format!($($words)+));
        }
    };
}
pub(crate) use ensure;

/// That positions keep their order, and what an acknowledgement means.
pub(crate) fn check_positions(positions: &Positions, floor: Durability) -> Result<(), Broken> {
    let Positions {
        start,
        high_watermark,
        durable,
        end,
        ..
    } = *positions;
    ensure!(
        start <= high_watermark && high_watermark <= end && durable <= end,
        "positions are out of order: {positions:?}"
    );
    ensure!(
        floor == Durability::Memory || high_watermark <= durable,
        "visible before durable: {positions:?}"
    );
    Ok(())
}

/// That `fetched`, read at `from`, holds exactly the model's batches; returns where to read on.
pub(crate) fn check_fetched(
    model: &Model,
    from: Offset,
    bytes_max: usize,
    fetched: &Fetched,
) -> Result<Offset, Broken> {
    let len: usize = fetched.chunks.iter().map(|chunk| chunk.len()).sum();
    ensure!(
        len == fetched.len,
        "{len} bytes read, {} claimed",
        fetched.len
    );
    let first = model.index_of(from);
    let mut at = first;
    let mut harmed = false;
    let mut stream = BatchStream::new(fetched.chunks.iter().cloned());
    loop {
        let batch = match stream.next_batch(&Limits::DEFAULT) {
            Ok(None) => break,
            Ok(Some(batch)) => batch,
            Err(error) => {
                check_harm(model, at, &error)?;
                harmed = true;
                at += 1;
                // The length may be what is wrong: nothing behind it can be told from here.
                break;
            }
        };
        let Some(entry) = model.entries.get(at) else {
            return Err(format!("read {} behind the end", batch.header().offsets()));
        };
        // No checksum covers the base offset: that it does not fit between its neighbours tells.
        let misplaced = batch.header().base_offset != entry.offsets().start;
        harmed |= entry.damaged && misplaced;
        ensure!(
            batch == entry.batch || entry.damaged && misplaced,
            "altered: read {:?}, promised {:?}",
            batch.header(),
            entry.batch.header()
        );
        at += 1;
    }
    let next = model.entries[..at]
        .last()
        .map_or(Offset::ZERO, |entry| entry.offsets().end);
    ensure!(
        at <= first + 1 || harmed || len <= bytes_max,
        "{len} bytes read, at most {bytes_max} asked for"
    );
    if at == first {
        return Ok(from);
    }
    let start = model.entries[first].offsets().start;
    ensure!(
        harmed || (fetched.offsets.start == start && fetched.offsets.end == next),
        "read [{start}, {next}), claimed {}",
        fetched.offsets
    );
    Ok(next)
}

fn check_harm(model: &Model, at: usize, error: &DecodeError) -> Result<(), Broken> {
    match model.entries.get(at) {
        Some(entry) if entry.damaged => Ok(()),
        Some(entry) => Err(format!(
            "batch {} does not decode: {error}",
            entry.offsets()
        )),
        None => Err(format!("bytes behind the end do not decode: {error}")),
    }
}

/// That a read at `from` may fail like this; returns where reading goes on.
pub(crate) fn check_read_error(
    model: &Model,
    from: Offset,
    error: &ReadError,
) -> Result<Offset, Broken> {
    let ReadError::Corrupt { offsets, .. } = error else {
        return Err(format!("a read at {from} failed: {error}"));
    };
    ensure!(
        offsets.contains(from),
        "a read at {from} reports damage elsewhere: {error}"
    );
    check_damaged(model, offsets.start, offsets.end)?;
    Ok(offsets.end)
}

/// That every batch in `[start, end)` was damaged.
pub(crate) fn check_damaged(model: &Model, start: Offset, end: Offset) -> Result<(), Broken> {
    let within = model.entries[model.index_of(start)..]
        .iter()
        .take_while(|entry| entry.offsets().start < end);
    for entry in within {
        ensure!(
            entry.damaged,
            "[{start}, {end}) is reported as damaged, but {} is not",
            entry.offsets()
        );
    }
    Ok(())
}
