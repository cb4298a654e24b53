//! The comlog service: topics, partitions, group commit, gRPC and gRPC-web on one port.
//!
//! [`Server`] is what `comlog serve` runs: a listener with its bounds, TLS and pages, before a
//! [`Broker`], which is everything behind the listener: it owns the logs and hands out the services.
//! A program that has a listener of its own takes the broker alone and its [`Broker::routes`].
//!
//! ```no_run
//! use std::sync::Arc;
//! use std::time::Duration;
//!
//! use comlog_server::{Server, ServerConfig, SystemClock};
//!
//! # async fn run() -> Result<(), Box<dyn std::error::Error>> {
//! let mut config = ServerConfig::default();
//! config.data_dir = "./data".into();
//! config.listen = "127.0.0.1:0".parse()?;
//! config.validate()?;
//! // A jump of the clock ahead is believed after a day.
//! let clock = SystemClock::new(Duration::from_secs(24 * 60 * 60));
//! let server = Server::start(config, Arc::new(clock)).await?;
//! println!("serving on {}", server.url());
//! let ctrl_c = async { drop(tokio::signal::ctrl_c().await) };
//! server.run(ctrl_c).await;
//! # Ok(())
//! # }
//! ```
//!
//! Everything asynchronous here needs a tokio runtime with all drivers on. There are no features to
//! choose; Linux, and the Rust version that `rust-version` names, or a later one.
//!
//! | Where | What it bounds or sets |
//! |---|---|
//! | [`HttpConfig`] | connections, streams, requests, headers, timeouts, other origins |
//! | [`AppendConfig`], [`FetchConfig`], [`GroupsConfig`], [`TopicsConfig`] | what the broker holds and has under way |
//! | [`DiskConfig`] | syncs, maps and memory of the local disk |
//! | [`TopicDefaults`] | what topics follow unless they say otherwise |
//! | [`TlsConfig`], [`LoggingConfig`] | encryption, what is written to stderr |

mod activity;
mod archive;
mod body;
mod broker;
mod broker_config;
mod budget;
mod clock;
mod config;
mod connection;
mod counters;
mod dirs;
mod fetch;
#[cfg(test)]
mod format_test;
mod group_commit;
mod group_keeper;
mod group_repair;
mod group_state;
mod groups;
mod http_date;
mod layers;
mod listener;
mod meta_file;
mod metrics;
mod offline;
mod pages;
mod partition;
mod producer_ids;
mod records;
mod router;
mod server;
mod service;
mod status;
mod tail;
mod tails;
mod tls;
mod topic;
mod topic_config;
mod topic_name;
mod topic_store;
mod topics;
mod topics_env;
mod units;
mod unpack;

pub use archive::{
    ArchiveConfig, ClampedOffset, RestoreError, RestoreProgress, Restored, audit_topic, restore,
};
pub use broker::{Broker, OpenError};
pub use broker_config::{AppendConfig, BrokerConfig, FetchConfig, GroupsConfig, TopicsConfig};
pub use budget::ConnectionBudget;
pub use clock::SystemClock;
pub use config::{
    DiskConfig, HttpConfig, Loaded, LogFormat, LoggingConfig, ServerConfig, TlsConfig,
};
pub use counters::Counters;
pub use dirs::{DiskDirs, LogDirs};
pub use group_repair::{RepairError, RepairedGroups, repair_groups};
pub use layers::ConfigError;
pub use offline::{MetaFinding, check_meta, inspect_meta};
pub use server::{Drain, Server, StartError};
pub use status::{ERROR_DOMAIN, ServiceError};
pub use tls::{SELF_SIGNED_CERT, TlsError};
pub use topic_config::{Durability, TimestampType, TopicDefaults, Validation};
