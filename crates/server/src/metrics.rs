//! `/metrics`: what is counted, in the text format of OpenMetrics, which Prometheus reads.
//!
//! Counting is an addition to an atomic number; the text is made when somebody asks for it.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

use crate::counters::Counters;

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
    pub(crate) broker: Arc<Counters>,
    pub(crate) listener: Arc<ListenerCounters>,
    pub(crate) started: Instant,
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
}

impl Collector for Metrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let to = &mut encoder;
        let (listener, broker) = (&self.listener, &self.broker);
        let uptime = i64::try_from(self.started.elapsed().as_secs()).unwrap_or(i64::MAX);
        let uptime = ConstGauge::new(uptime);
        write(
            to,
            "uptime",
            "Since the start",
            Some(&Unit::Seconds),
            &uptime,
        )?;
        let gauges = [
            ("connections", "Connections open", &listener.connections),
            (
                "requests",
                "Requests and streams under way",
                &listener.requests,
            ),
            ("tails", "Tails running", &broker.tails),
            (
                "appending_batches",
                "Batches queued, being written or synced",
                &broker.appending_batches,
            ),
        ];
        for (name, help, value) in gauges {
            gauge(to, name, help, value)?;
        }
        let counters = [
            (
                "connections_accepted",
                "Connections accepted",
                &listener.accepted,
            ),
            (
                "connections_refused",
                "Connections over the bound",
                &listener.refused,
            ),
            (
                "connections_expired",
                "Connections silent for too long",
                &listener.expired,
            ),
            (
                "requests_overloaded",
                "Requests over the bound",
                &listener.overloaded,
            ),
            (
                "appended_batches",
                "Batches appended",
                &broker.appended_batches,
            ),
            (
                "appended_records",
                "Records appended",
                &broker.appended_records,
            ),
            (
                "appended_bytes",
                "Bytes of batches appended",
                &broker.appended_bytes,
            ),
            (
                "refused_batches",
                "Batches refused",
                &broker.refused_batches,
            ),
            (
                "groups",
                "Groups of appends that shared one write",
                &broker.groups,
            ),
            (
                "fetched_bytes",
                "Bytes handed out to readers and tails",
                &broker.fetched_bytes,
            ),
        ];
        for (name, help, value) in counters {
            counter(to, name, help, value)?;
        }
        Ok(())
    }
}

fn counter(
    to: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    value: &AtomicU64,
) -> fmt::Result {
    let value = ConstCounter::new(value.load(Ordering::Relaxed));
    write(to, name, help, None, &value)
}

fn gauge(to: &mut DescriptorEncoder<'_>, name: &str, help: &str, value: &AtomicU64) -> fmt::Result {
    let value = i64::try_from(value.load(Ordering::Relaxed)).unwrap_or(i64::MAX);
    write(to, name, help, None, &ConstGauge::new(value))
}

fn write(
    to: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    unit: Option<&Unit>,
    metric: &impl EncodeMetric,
) -> fmt::Result {
    metric.encode(to.encode_descriptor(name, help, unit, metric.metric_type())?)
}
