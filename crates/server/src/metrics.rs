//! `/metrics`: what is counted, in the text format of OpenMetrics, which Prometheus reads.
//!
//! Counting is an addition to an atomic number; the text is made when somebody asks for it.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;

use crate::archive::StopKind;
use crate::broker::Broker;

/// What the listener counts.
#[derive(Debug, Default)]
pub(crate) struct ListenerCounters {
    /// Gauge: connections open.
    pub(crate) connections: AtomicU64,
    /// Gauge: requests and streams under way.
    pub(crate) requests: AtomicU64,
    /// Connections accepted.
    pub(crate) accepted: AtomicU64,
    /// Connections closed at once because there were too many.
    pub(crate) refused: AtomicU64,
    /// Connections closed because they were silent for too long.
    pub(crate) expired: AtomicU64,
    /// Requests refused because too many were under way.
    pub(crate) overloaded: AtomicU64,
}

impl ListenerCounters {
    /// A connection was silent for too long.
    pub(crate) fn expire(&self) {
        self.expired.fetch_add(1, Ordering::Relaxed);
    }
}

/// Which gauge.
type Gauge = fn(&ListenerCounters) -> &AtomicU64;

/// One in a gauge, until it is dropped.
#[derive(Debug)]
pub(crate) struct Raised {
    counters: Arc<ListenerCounters>,
    gauge: Gauge,
}

impl Raised {
    /// Raises a gauge by one; also returns what it stands at now.
    pub(crate) fn raise(counters: &Arc<ListenerCounters>, gauge: Gauge) -> (Raised, u64) {
        let now = gauge(counters).fetch_add(1, Ordering::Relaxed) + 1;
        let counters = counters.clone();
        (Raised { counters, gauge }, now)
    }
}

impl Drop for Raised {
    fn drop(&mut self) {
        (self.gauge)(&self.counters).fetch_sub(1, Ordering::Relaxed);
    }
}

/// Everything that is counted.
#[derive(Debug, Clone)]
pub(crate) struct Metrics {
    pub(crate) broker: Broker,
    pub(crate) listener: Arc<ListenerCounters>,
    pub(crate) started: Instant,
    /// Partitions that are told of one by one.
    pub(crate) partitions_max: usize,
}

impl Metrics {
    /// The text that `/metrics` answers with.
    pub(crate) fn render(&self) -> String {
        let mut registry = Registry::with_prefix("comlog");
        let build = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
        registry.register("build", "What runs", build);
        registry.register_collector(Box::new(self.clone()));
        let mut text = String::new();
        // Writing to a string does not fail, but a metric could be described wrongly.
        if let Err(error) = encode(&mut text, &registry) {
            tracing::error!(%error, "cannot encode the metrics");
        }
        text
    }

    fn encode_listener(&self, to: &mut Encoder<'_>) -> fmt::Result {
        let counters = &self.listener;
        to.gauge(
            "uptime_seconds",
            "Since the start",
            self.started.elapsed().as_secs(),
        )?;
        to.gauge(
            "connections",
            "Connections open",
            load(&counters.connections),
        )?;
        to.gauge(
            "requests",
            "Requests and streams under way",
            load(&counters.requests),
        )?;
        to.counter(
            "connections_accepted",
            "Connections accepted",
            load(&counters.accepted),
        )?;
        to.counter(
            "connections_refused",
            "Connections over the bound",
            load(&counters.refused),
        )?;
        to.counter(
            "connections_expired",
            "Connections silent for too long",
            load(&counters.expired),
        )?;
        to.counter(
            "requests_overloaded",
            "Requests over the bound",
            load(&counters.overloaded),
        )
    }

    fn encode_broker(&self, to: &mut Encoder<'_>) -> fmt::Result {
        let counters = self.broker.counters();
        to.gauge("tails", "Tails running", load(&counters.tails))?;
        to.gauge(
            "appending_batches",
            "Batches queued, being written or synced",
            load(&counters.appending_batches),
        )?;
        to.counter(
            "appended_batches",
            "Batches appended",
            load(&counters.appended_batches),
        )?;
        to.counter(
            "appended_records",
            "Records appended",
            load(&counters.appended_records),
        )?;
        to.counter(
            "appended_bytes",
            "Bytes of batches appended",
            load(&counters.appended_bytes),
        )?;
        to.counter(
            "fetched_bytes",
            "Bytes handed to readers and tails",
            load(&counters.fetched_bytes),
        )?;
        to.counter(
            "groups",
            "Groups of appends that shared a write",
            load(&counters.groups),
        )?;
        to.metric(
            "group_batches",
            "Batches of each group",
            &counters.group_batches,
        )?;
        to.metric(
            "commit_seconds",
            "Time a group took to be written and synced",
            &counters.commit_seconds,
        )?;
        let refused = counters.refused_batches().map(|(reason, count)| {
            let name = reason.as_str_name();
            let label = name.strip_prefix("REASON_").unwrap_or(name);
            ([("reason", label.to_owned())], ConstCounter::new(count))
        });
        to.family(
            "refused_batches",
            "Batches refused, by reason",
            refused.collect(),
        )
    }

    fn encode_archive(&self, to: &mut Encoder<'_>) -> fmt::Result {
        let Some(archive) = self.broker.archive() else {
            return Ok(());
        };
        let counters = &archive.counters;
        let (gets, get_bytes, read_errors) = archive.reads();
        let oldest = Duration::from_millis(load(&counters.oldest_unarchived_ms));
        to.gauge(
            "archive_fenced",
            "1 when another server has taken the archive over",
            u64::from(archive.stop_kind() == Some(StopKind::Fenced)),
        )?;
        to.gauge(
            "archive_refused",
            "1 when the store is not fit, or of an unknown format: nothing is archived until the next start",
            u64::from(archive.stop_kind() == Some(StopKind::Refused)),
        )?;
        to.gauge(
            "archive_backlog_segments",
            "Sealed segments that wait for the archive",
            load(&counters.backlog_segments),
        )?;
        to.gauge(
            "archive_backlog_bytes",
            "Their bytes",
            load(&counters.backlog_bytes),
        )?;
        to.gauge(
            "archive_oldest_unarchived_seconds",
            "How long the oldest of them has waited",
            oldest.as_secs(),
        )?;
        to.counter(
            "archive_errors",
            "Attempts to archive that failed",
            load(&counters.errors),
        )?;
        to.counter(
            "archive_uploaded_segments",
            "Segments archived",
            load(&counters.uploaded_segments),
        )?;
        to.counter(
            "archive_uploaded_bytes",
            "Bytes of segments archived",
            load(&counters.uploaded_bytes),
        )?;
        to.counter(
            "archive_evicted_segments",
            "Local copies of archived segments removed",
            load(&counters.evicted_segments),
        )?;
        to.counter(
            "archive_removed_segments",
            "Archived segments removed by retention or trimming",
            load(&counters.removed_segments),
        )?;
        to.counter(
            "archive_removed_orphans",
            "Objects removed that no manifest named",
            load(&counters.removed_orphans),
        )?;
        to.counter("archive_gets", "Blocks of archived segments fetched", gets)?;
        to.counter("archive_read_bytes", "Their bytes", get_bytes)?;
        to.counter(
            "archive_read_errors",
            "Fetches that failed or brought wrong bytes",
            read_errors,
        )
    }

    fn encode_partitions(&self, to: &mut Encoder<'_>) -> fmt::Result {
        let (total, partitions) = self.broker.partition_gauges(self.partitions_max);
        to.gauge("partitions", "Partitions of all topics", total as u64)?;
        let (failed, refused) = self.broker.not_served();
        to.gauge(
            "partitions_failed",
            "Partitions that could not be opened",
            failed,
        )?;
        to.gauge(
            "topics_refused",
            "Topics that are there and not served, for want of usable metadata",
            refused,
        )?;
        let columns: [(&str, &str, Column); 4] = [
            ("partition_start_offset", "Log start offset", |p| p.start),
            (
                "partition_high_watermark",
                "Where what readers see ends",
                |p| p.high_watermark,
            ),
            ("partition_end_offset", "Log end offset", |p| p.end),
            ("partition_size_bytes", "Bytes of all segments", |p| {
                p.size_bytes
            }),
        ];
        for (name, help, value) in columns {
            let row = |p: &PartitionGauges| {
                let labels = [
                    ("topic", p.topic.to_string()),
                    ("partition", p.partition.to_string()),
                ];
                (labels, as_gauge(value(p)))
            };
            to.family(name, help, partitions.iter().map(row).collect())?;
        }
        Ok(())
    }
}

impl Collector for Metrics {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut to = Encoder(encoder);
        self.encode_listener(&mut to)?;
        self.encode_broker(&mut to)?;
        self.encode_archive(&mut to)?;
        self.encode_partitions(&mut to)
    }
}

/// Picks a number of a partition.
type Column = fn(&PartitionGauges) -> u64;

/// What `/metrics` tells of one partition.
#[derive(Debug)]
pub(crate) struct PartitionGauges {
    pub(crate) topic: Arc<str>,
    pub(crate) partition: u32,
    pub(crate) start: u64,
    pub(crate) high_watermark: u64,
    pub(crate) end: u64,
    pub(crate) size_bytes: u64,
}

/// Writes metrics one after the other.
struct Encoder<'a>(DescriptorEncoder<'a>);

impl Encoder<'_> {
    fn counter(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        self.metric(name, help, &ConstCounter::new(value))
    }

    fn gauge(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        self.metric(name, help, &as_gauge(value))
    }

    fn metric(&mut self, name: &str, help: &str, metric: &impl EncodeMetric) -> fmt::Result {
        let encoder = self
            .0
            .encode_descriptor(name, help, None, metric.metric_type())?;
        metric.encode(encoder)
    }

    /// One metric with labels; nothing is written for an empty one.
    fn family<const N: usize, M: EncodeMetric>(
        &mut self,
        name: &str,
        help: &str,
        rows: Vec<([(&'static str, String); N], M)>,
    ) -> fmt::Result {
        let Some((_, first)) = rows.first() else {
            return Ok(());
        };
        let kind = first.metric_type();
        let mut encoder = self.0.encode_descriptor(name, help, None, kind)?;
        for (labels, metric) in &rows {
            metric.encode(encoder.encode_family(labels)?)?;
        }
        Ok(())
    }
}

fn load(value: &AtomicU64) -> u64 {
    value.load(Ordering::Relaxed)
}

fn as_gauge(value: u64) -> ConstGauge<i64> {
    ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX))
}
