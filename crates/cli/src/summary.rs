//! What became of the records that `produce` has sent.

use std::collections::BTreeMap;

use comlog_client::{Error, ErrorKind};
use serde_json::{Value, json};

/// Counts records by what became of them, and where those stand that were acknowledged.
#[derive(Debug, Default)]
pub(crate) struct Summary {
    /// Records acknowledged.
    pub(crate) records: u64,
    /// Records that are not in the log.
    pub(crate) refused: u64,
    /// Records that were sent and may be in the log or not.
    pub(crate) in_doubt: u64,
    /// First offset and the offset behind the last, by partition.
    ranges: BTreeMap<u32, (i64, i64)>,
}

impl Summary {
    /// Notes an acknowledged record; its offset may be unknown after a retry.
    pub(crate) fn add(&mut self, partition: u32, offset: Option<i64>) {
        self.records += 1;
        let Some(offset) = offset else {
            return;
        };
        let end = offset.saturating_add(1);
        let range = self.ranges.entry(partition).or_insert((offset, end));
        range.0 = range.0.min(offset);
        range.1 = range.1.max(end);
    }

    /// Notes a record that was not acknowledged, and why.
    pub(crate) fn add_failed(&mut self, error: &Error) {
        let decided = match error {
            Error::Server(_) => error.kind() != ErrorKind::Internal,
            error => error.kind() == ErrorKind::Invalid,
        };
        if decided {
            self.refused += 1;
        } else {
            self.in_doubt += 1;
        }
    }

    /// For people: `3 records, orders/0 offsets [5, 8), 1 refused`.
    pub(crate) fn to_text(&self, topic: &str) -> String {
        let unit = if self.records == 1 {
            "record"
        } else {
            "records"
        };
        let ranges = self.ranges.iter();
        let ranges: String = ranges
            .map(|(partition, (start, end))| {
                format!(", {topic}/{partition} offsets [{start}, {end})")
            })
            .collect();
        let mut text = format!("{} {unit}{ranges}", self.records);
        if self.refused > 0 {
            text += &format!(", {} refused", self.refused);
        }
        if self.in_doubt > 0 {
            text += &format!(", {} in doubt (in the log or not)", self.in_doubt);
        }
        text
    }

    /// For programs.
    pub(crate) fn to_json(&self, topic: &str) -> Value {
        let ranges = self.ranges.iter();
        let ranges: Vec<Value> = ranges
            .map(|(partition, (start, end))| {
                json!({"partition": partition, "start_offset": start, "end_offset": end})
            })
            .collect();
        json!({
            "topic": topic,
            "records": self.records,
            "refused": self.refused,
            "in_doubt": self.in_doubt,
            "partitions": ranges,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_kept_by_partition_whatever_the_order() {
        let mut summary = Summary::default();
        assert_eq!(summary.to_text("t"), "0 records");
        for (partition, offset) in [(1, 8), (0, 3), (1, 6), (1, 7)] {
            summary.add(partition, Some(offset));
        }
        assert_eq!(
            summary.to_text("t"),
            "4 records, t/0 offsets [3, 4), t/1 offsets [6, 9)"
        );
        assert_eq!(summary.to_json("t")["partitions"][1]["end_offset"], 9);
        summary.add(0, Some(i64::MAX));
        summary.add_failed(&Error::DeliveryTimeout(None));
        summary.add_failed(&Error::InvalidState("no"));
        let json = summary.to_json("t");
        assert_eq!(
            (&json["refused"], &json["in_doubt"]),
            (&1.into(), &1.into())
        );
    }
}
