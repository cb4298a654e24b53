//! What `produce` has sent, as far as it is acknowledged.

use std::collections::BTreeMap;

use serde_json::{Value, json};

/// Counts acknowledged records and where they stand.
#[derive(Debug, Default)]
pub(crate) struct Summary {
    /// Records acknowledged.
    pub(crate) records: u64,
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
        let range = self.ranges.entry(partition).or_insert((offset, offset + 1));
        range.0 = range.0.min(offset);
        range.1 = range.1.max(offset + 1);
    }

    /// For people: `3 records, orders/0 offsets [5, 8)`.
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
        format!("{} {unit}{ranges}", self.records)
    }

    /// For programs.
    pub(crate) fn to_json(&self, topic: &str) -> Value {
        let ranges = self.ranges.iter();
        let ranges: Vec<Value> = ranges
            .map(|(partition, (start, end))| {
                json!({"partition": partition, "start_offset": start, "end_offset": end})
            })
            .collect();
        json!({"topic": topic, "records": self.records, "partitions": ranges})
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
    }
}
