//! The client of comlog: a batching producer and a polling consumer.
//!
//! ```no_run
//! use std::time::Duration;
//! use comlog_client::{Client, ClientConfig, Consumer, ConsumerConfig, Producer, ProducerConfig};
//! use comlog_client::{ProducerRecord, StartAt};
//!
//! # async fn run() -> comlog_client::Result<()> {
//! let client = Client::new(ClientConfig::new("http://127.0.0.1:50052"))?;
//!
//! let producer = Producer::new(&client, ProducerConfig::new())?;
//! let delivery = producer.send(ProducerRecord::keyed("greetings", "en", "hello")).await?;
//! println!("at offset {:?}", delivery.await?.offset);
//! producer.close().await?;
//!
//! let mut consumer = Consumer::new(&client, ConsumerConfig::new())?;
//! consumer.assign("greetings", 0, StartAt::Earliest);
//! for batch in consumer.poll(Duration::from_secs(1)).await? {
//!     for record in batch.iter() {
//!         let record = record?;
//!         println!("{}: {:?}", record.offset, record.value);
//!     }
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # What it promises
//!
//! - Records of one partition are appended in the order of the calls that sent them, each exactly
//!   once, over lost connections and restarts of the server, as long as the producer lives. A
//!   record whose delivery fails with a timeout may or may not be in the log.
//! - A consumer hands out each record of a partition once and in order, from its position on.
//!   Batches are checked against their CRC; a damaged range is an error that names its offsets.
//! - Every buffer is bounded: the producer's by [`ProducerConfig::buffer_bytes_max`], the
//!   consumer's by [`ConsumerConfig::prefetch_bytes`] for each thousand partitions.
//! - Answers that contradict the request or themselves are [`Error::Protocol`]: whatever a server
//!   says, nothing here panics, waits longer than its timeouts, or takes memory unbounded.
//!
//! # Runtime and features
//!
//! Needs tokio with time and I/O enabled. [`Client::new`], [`Producer::new`] and
//! [`Consumer::new`] must be called inside a runtime; every `async fn` and [`Delivery`] may be
//! awaited on any executor while that runtime runs. [`Producer::try_send`],
//! [`Producer::try_send_with`], [`Consumer::assign`], [`Consumer::seek`], [`Consumer::pause`] and
//! the like are plain functions that never block.
//!
//! The crate has no features: TLS (rustls with ring) and all codecs are always there. Minimum
//! supported Rust: 1.95.

mod accumulator;
mod admin;
mod answer;
mod client;
mod commit;
mod config;
mod consumer;
mod consumer_config;
mod delivery;
mod error;
mod fetched;
mod follow;
mod partitioner;
mod pipeline;
mod producer;
mod producer_config;
mod reading;
mod retry;
mod routes;
mod sender;
mod split;
mod tail;
mod tails;

pub use client::Client;
pub use comlog_proto::v1;
pub use comlog_record as record;
pub use config::ClientConfig;
pub use consumer::Consumer;
pub use consumer_config::{ConsumerConfig, OffsetReset, StartAt};
pub use delivery::{Delivered, Delivery, DeliveryCallback};
pub use error::{Error, ErrorKind, Result, ServerError};
pub use fetched::{ConsumerRecord, FetchedBatch};
pub use partitioner::{murmur2, partition_for_key};
pub use producer::{DeliveryError, Producer, ProducerRecord};
pub use producer_config::ProducerConfig;
pub use retry::RetryPolicy;
