//! What answers must say before they are believed: numbers from a peer never decide how much memory
//! is taken, how far a position moves, or that something was done.

use comlog_proto::v1;

use crate::{Error, Result};

/// No topic has more partitions than this.
pub(crate) const PARTITIONS_MAX: u32 = 1_000_000;

/// The topic asked for, with at least one partition and at most [`PARTITIONS_MAX`].
pub(crate) fn described(name: &str, answer: &v1::DescribeTopicResponse) -> Result<()> {
    let wrong = |what: String| Err(Error::protocol(format!("topic {name:?} {what}")));
    let Some(topic) = &answer.topic else {
        return wrong("is not in the description of it".to_owned());
    };
    if topic.name != name {
        return wrong(format!("is described as {:?}", topic.name));
    }
    if !(1..=PARTITIONS_MAX).contains(&topic.partitions) {
        return wrong(format!("is said to have {} partitions", topic.partitions));
    }
    Ok(())
}

/// One answer for each query, in order, and within what the partition holds.
pub(crate) fn offsets_found(queries: &[v1::OffsetQuery], found: &[v1::OffsetFound]) -> Result<()> {
    if queries.len() != found.len() {
        let (asked, given) = (queries.len(), found.len());
        return Err(Error::protocol(format!(
            "{given} offsets for {asked} queries"
        )));
    }
    for (query, found) in queries.iter().zip(found) {
        let same = query.topic == found.topic && query.partition == found.partition;
        let (start, end) = (found.log_start_offset, found.high_watermark);
        if !same || start < 0 || end < start || found.offset < 0 {
            return Err(Error::protocol(format!(
                "asked about {:?} {}, it says that {:?} {} holds [{start}, {end}) and found {}",
                query.topic, query.partition, found.topic, found.partition, found.offset
            )));
        }
    }
    Ok(())
}

/// Nothing but what was asked for (everything, when nothing was), and no offset below 0.
pub(crate) fn committed(
    asked: &[v1::TopicPartition],
    offsets: &[v1::CommittedOffset],
) -> Result<()> {
    let asked: std::collections::HashSet<(&str, u32)> = asked
        .iter()
        .map(|asked| (asked.topic.as_str(), asked.partition))
        .collect();
    let wrong = |offset: &&v1::CommittedOffset| {
        let is_asked = asked.is_empty() || asked.contains(&(&offset.topic, offset.partition));
        offset.offset < 0 || !is_asked
    };
    match offsets.iter().find(wrong) {
        None => Ok(()),
        Some(wrong) => Err(Error::protocol(format!(
            "asked for committed offsets, it gives {} of {:?} {}",
            wrong.offset, wrong.topic, wrong.partition
        ))),
    }
}

/// As many offsets as records, from 0 on.
pub(crate) fn appended(records: u32, appended: &v1::Appended) -> Result<()> {
    let (start, end) = (appended.base_offset, appended.next_offset);
    if start >= 0 && end.checked_sub(start) == Some(i64::from(records)) {
        return Ok(());
    }
    Err(Error::protocol(format!(
        "{records} records are acknowledged at offsets [{start}, {end})"
    )))
}

/// Where reading goes on lies at or behind where it began, and not behind the end.
pub(crate) fn fetched(position: i64, fetched: &v1::Fetched) -> Result<()> {
    let (next, end) = (fetched.next_offset, fetched.high_watermark);
    if position <= next && next <= end {
        return Ok(());
    }
    Err(Error::protocol(format!(
        "read at offset {position}, reading shall go on at {next} of a log that ends at {end}"
    )))
}
