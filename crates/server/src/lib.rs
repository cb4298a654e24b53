//! The comlog service: topics, partitions, group commit, gRPC and gRPC-web on one port.
//!
//! [`Broker`] is everything behind the listener: it owns the logs and hands out the services.

mod activity;
mod broker;
mod broker_config;
mod budget;
mod clock;
mod config;
mod connection;
mod counters;
mod dirs;
mod fetch;
mod group_commit;
mod group_keeper;
mod group_state;
mod groups;
mod layers;
mod listener;
mod metrics;
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
mod units;

pub use broker::{Broker, OpenError};
pub use broker_config::{AppendConfig, BrokerConfig, FetchConfig, GroupsConfig, TopicsConfig};
pub use budget::ConnectionBudget;
pub use clock::SystemClock;
pub use config::{
    DiskConfig, HttpConfig, Loaded, LogFormat, LoggingConfig, ServerConfig, TlsConfig,
};
pub use counters::Counters;
pub use dirs::{DiskDirs, LogDirs};
pub use layers::ConfigError;
pub use server::{Drain, Server, StartError};
pub use status::{ERROR_DOMAIN, ServiceError};
pub use tls::TlsError;
pub use topic_config::{Durability, TimestampType, TopicDefaults, Validation};
