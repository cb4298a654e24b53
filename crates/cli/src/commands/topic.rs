//! `comlog topic create|list|describe|alter|delete`.

use clap::{Args, Subcommand, ValueEnum};
use comlog_client::{Client, ErrorKind};
use comlog_proto::v1;
use serde_json::{Map, Value, json};

use crate::error::Result;
use crate::output::{self, Out};
use crate::{confirm, time, units};

/// Creates, shows, changes and deletes topics
#[derive(Debug, Args)]
pub(crate) struct TopicArgs {
    #[command(subcommand)]
    command: TopicCommand,
}

#[derive(Debug, Subcommand)]
enum TopicCommand {
    /// Creates a topic
    #[command(after_help = "\
Examples:
  comlog topic create orders --partitions 8
  comlog topic create metrics --durability memory --retention-time 7d")]
    Create {
        /// 1 to 249 of a-z A-Z 0-9 . _ -
        topic: String,
        /// How many partitions; the server's default when absent
        #[arg(short, long, default_value_t = 0, hide_default_value = true)]
        partitions: u32,
        /// Succeed when the topic exists already, and leave it as it is
        #[arg(long)]
        if_not_exists: bool,
        #[command(flatten)]
        config: ConfigArgs,
    },
    /// Lists topics
    List {
        /// Include the topics that comlog keeps for itself
        #[arg(long)]
        internal: bool,
    },
    /// Shows a topic's configuration and where its partitions stand
    Describe {
        /// The topic
        topic: String,
    },
    /// Changes a topic's configuration, or adds partitions
    #[command(after_help = "\
Examples:
  comlog topic alter orders --retention-time 30d --reset segment_bytes
  comlog topic alter orders --partitions 16")]
    Alter {
        /// The topic
        topic: String,
        /// More partitions than there are; keys then map to other partitions than before
        #[arg(short, long)]
        partitions: Option<u32>,
        /// A setting that shall follow the server's default again, such as retention_ms; may repeat
        #[arg(long, value_name = "SETTING")]
        reset: Vec<String>,
        #[command(flatten)]
        config: ConfigArgs,
    },
    /// Deletes a topic and its records
    Delete {
        /// The topic
        topic: String,
        /// Do not ask
        #[arg(short, long)]
        yes: bool,
    },
}

/// The configuration of a topic; what is absent follows the server's.
#[derive(Debug, Args)]
#[command(next_help_heading = "Topic configuration")]
struct ConfigArgs {
    /// Roll a segment before it exceeds this, such as 64MiB
    #[arg(long, value_name = "SIZE", value_parser = units::parse_bytes)]
    segment_bytes: Option<u64>,
    /// Roll a segment when its first record is this old, such as 1d, or "unlimited"
    #[arg(long, value_name = "SPAN", value_parser = units::parse_ms_or_unlimited)]
    segment_time: Option<i64>,
    /// Delete the oldest segments while a partition is larger, such as 10GiB, or "unlimited"
    #[arg(long, value_name = "SIZE", value_parser = units::parse_bytes_or_unlimited)]
    retention_bytes: Option<i64>,
    /// Delete segments whose newest record is older, such as 7d, or "unlimited"
    #[arg(long, value_name = "SPAN", value_parser = units::parse_ms_or_unlimited)]
    retention_time: Option<i64>,
    /// Whether sealed segments go to the archive, when the server has one
    #[arg(long, value_name = "BOOL")]
    archive: Option<bool>,
    /// Remove local copies of archived segments while a partition has more bytes on the server's
    /// disk, such as 10GiB; 0 keeps what is not archived yet, "unlimited" all
    #[arg(long, value_name = "SIZE", value_parser = units::parse_bytes_or_unlimited)]
    local_retention_bytes: Option<i64>,
    /// Remove local copies of archived segments whose newest record is older, such as 1d, or
    /// "unlimited"
    #[arg(long, value_name = "SPAN", value_parser = units::parse_ms_or_unlimited)]
    local_retention_time: Option<i64>,
    /// The largest batch accepted, such as 8MiB
    #[arg(long, value_name = "SIZE", value_parser = units::parse_u32)]
    max_batch_bytes: Option<u32>,
    /// What an acknowledgement promises at least
    #[arg(long, value_enum)]
    durability: Option<Durability>,
    /// Whose clock stamps the records
    #[arg(long, value_enum)]
    timestamp_type: Option<TimestampType>,
    /// How much of a batch the server checks
    #[arg(long, value_enum)]
    validation: Option<Validation>,
}

/// What an acknowledgement promises.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum Durability {
    /// Written, not yet synced: a power cut may take it back
    Memory,
    /// Synced to the disk
    Durable,
}

impl Durability {
    /// The protocol's value.
    pub(crate) fn to_proto(self) -> v1::Durability {
        match self {
            Durability::Memory => v1::Durability::Memory,
            Durability::Durable => v1::Durability::Durable,
        }
    }
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum TimestampType {
    /// The producer's
    CreateTime,
    /// The server's
    LogAppendTime,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Validation {
    /// Header and checksum
    Header,
    /// Every record
    Full,
}

impl ConfigArgs {
    fn to_proto(&self) -> v1::TopicConfig {
        let timestamp_type = self.timestamp_type.map(|value| match value {
            TimestampType::CreateTime => v1::TimestampType::CreateTime,
            TimestampType::LogAppendTime => v1::TimestampType::LogAppendTime,
        });
        let validation = self.validation.map(|value| match value {
            Validation::Header => v1::Validation::Header,
            Validation::Full => v1::Validation::Full,
        });
        v1::TopicConfig {
            segment_bytes: self.segment_bytes,
            segment_ms: self.segment_time,
            retention_bytes: self.retention_bytes,
            retention_ms: self.retention_time,
            archive: self.archive,
            local_retention_bytes: self.local_retention_bytes,
            local_retention_ms: self.local_retention_time,
            max_batch_bytes: self.max_batch_bytes,
            durability: self.durability.map_or(0, |value| value.to_proto() as i32),
            timestamp_type: timestamp_type.map_or(0, |value| value as i32),
            validation: validation.map_or(0, |value| value as i32),
        }
    }
}

/// Runs the command.
pub(crate) async fn run(args: TopicArgs, client: &Client, out: &mut Out) -> Result<()> {
    match args.command {
        TopicCommand::Create {
            topic,
            partitions,
            if_not_exists,
            config,
        } => {
            let created = client
                .create_topic(&topic, partitions, config.to_proto())
                .await;
            match created {
                Ok(topic) => changed(&topic, "created", out)?,
                Err(error) if if_not_exists && error.kind() == ErrorKind::AlreadyExists => {
                    let described = client.describe_topic(&topic).await?;
                    changed(&described.topic.unwrap_or_default(), "kept", out)?;
                }
                Err(error) => return Err(error.into()),
            }
        }
        TopicCommand::List { internal } => list(&client.list_topics(internal).await?, out)?,
        TopicCommand::Describe { topic } => describe(&client.describe_topic(&topic).await?, out)?,
        TopicCommand::Alter {
            topic,
            partitions,
            reset,
            config,
        } => {
            let request = v1::AlterTopicRequest {
                name: topic,
                config: Some(config.to_proto()),
                reset,
                partitions,
            };
            let response = client.alter_topic(request).await?;
            for warning in &response.warnings {
                eprintln!("comlog: warning: {warning}");
            }
            changed(&response.topic.unwrap_or_default(), "altered", out)?;
        }
        TopicCommand::Delete { topic, yes } => {
            confirm::ask(
                &format!("Delete topic {topic} and all of its records?"),
                yes,
            )?;
            client.delete_topic(&topic).await?;
            if out.is_json() {
                out.json(&json!({"deleted": topic}))?;
            } else {
                out.line(format_args!("deleted {topic}"))?;
            }
        }
    }
    out.flush()
}

fn changed(topic: &v1::Topic, verb: &str, out: &mut Out) -> Result<()> {
    if out.is_json() {
        return out.json(&topic_json(topic));
    }
    let unit = if topic.partitions == 1 {
        "partition"
    } else {
        "partitions"
    };
    out.line(format_args!(
        "{verb} {} ({} {unit})",
        topic.name, topic.partitions
    ))
}

fn list(topics: &[v1::Topic], out: &mut Out) -> Result<()> {
    if out.is_json() {
        return topics
            .iter()
            .try_for_each(|topic| out.json(&topic_json(topic)));
    }
    let row = |topic: &v1::Topic| {
        vec![
            topic.name.clone(),
            topic.partitions.to_string(),
            time::format(topic.created_ms),
            topic.id.clone(),
        ]
    };
    let rows: Vec<_> = topics.iter().map(row).collect();
    out.table(&["TOPIC", "PARTITIONS", "CREATED", "ID"], &rows)
}

fn describe(response: &v1::DescribeTopicResponse, out: &mut Out) -> Result<()> {
    let topic = response.topic.clone().unwrap_or_default();
    let set = topic
        .config
        .map(|config| config_json(&config))
        .unwrap_or_default();
    let effective = response
        .effective
        .map(|config| config_json(&config))
        .unwrap_or_default();
    if out.is_json() {
        let mut object = topic_json(&topic);
        object["effective"] = Value::Object(effective);
        object["partition_infos"] = response.partitions.iter().map(partition_json).collect();
        return out.json(&object);
    }
    out.line(format_args!(
        "topic {}  id {}  created {}",
        topic.name,
        topic.id,
        time::format(topic.created_ms)
    ))?;
    for (name, value) in &effective {
        let origin = if set.contains_key(name) {
            "set"
        } else {
            "default"
        };
        out.line(format_args!("  {name} = {} ({origin})", plain(value)))?;
    }
    let row = |info: &v1::PartitionInfo| {
        vec![
            info.partition.to_string(),
            info.log_start_offset.to_string(),
            info.high_watermark.to_string(),
            info.durable_offset.to_string(),
            info.log_end_offset.to_string(),
            output::bytes(info.size_bytes),
            info.segments.to_string(),
            info.leader_epoch.to_string(),
            state(info),
        ]
    };
    let rows: Vec<_> = response.partitions.iter().map(row).collect();
    let head = [
        "PARTITION",
        "START",
        "VISIBLE",
        "DURABLE",
        "END",
        "SIZE",
        "SEGMENTS",
        "EPOCH",
        "STATE",
    ];
    out.table(&head, &rows)
}

fn plain(value: &Value) -> String {
    value
        .as_str()
        .map_or_else(|| value.to_string(), str::to_owned)
}

fn state(info: &v1::PartitionInfo) -> String {
    let damaged = info
        .damaged
        .iter()
        .map(|range| format!("[{}, {})", range.start, range.end));
    match (info.failure.is_empty(), info.damaged.is_empty()) {
        (true, true) => "ok".to_owned(),
        (true, false) => format!("damaged {}", damaged.collect::<Vec<_>>().join(" ")),
        (false, _) => format!("failed: {}", info.failure),
    }
}

fn topic_json(topic: &v1::Topic) -> Value {
    json!({
        "name": topic.name,
        "id": topic.id,
        "partitions": topic.partitions,
        "created_ms": topic.created_ms,
        "config": topic.config.map(|config| config_json(&config)).unwrap_or_default(),
    })
}

/// The settings that are set, by the names that `--reset` takes.
fn config_json(config: &v1::TopicConfig) -> Map<String, Value> {
    let lower = |name: &str, prefix| json!(name.trim_start_matches(prefix).to_lowercase());
    let durability = lower(config.durability().as_str_name(), "DURABILITY_");
    let timestamp_type = lower(config.timestamp_type().as_str_name(), "TIMESTAMP_TYPE_");
    let validation = lower(config.validation().as_str_name(), "VALIDATION_");
    let settings = [
        ("segment_bytes", config.segment_bytes.map(Value::from)),
        ("segment_ms", config.segment_ms.map(Value::from)),
        ("retention_bytes", config.retention_bytes.map(Value::from)),
        ("retention_ms", config.retention_ms.map(Value::from)),
        ("archive", config.archive.map(Value::from)),
        (
            "local_retention_bytes",
            config.local_retention_bytes.map(Value::from),
        ),
        (
            "local_retention_ms",
            config.local_retention_ms.map(Value::from),
        ),
        ("max_batch_bytes", config.max_batch_bytes.map(Value::from)),
        ("durability", (config.durability != 0).then_some(durability)),
        (
            "timestamp_type",
            (config.timestamp_type != 0).then_some(timestamp_type),
        ),
        ("validation", (config.validation != 0).then_some(validation)),
    ];
    let set = settings
        .into_iter()
        .filter_map(|(name, value)| Some((name.to_owned(), value?)));
    set.collect()
}

fn partition_json(info: &v1::PartitionInfo) -> Value {
    let damaged = info
        .damaged
        .iter()
        .map(|range| json!({"start": range.start, "end": range.end}));
    json!({
        "partition": info.partition,
        "log_start_offset": info.log_start_offset,
        "high_watermark": info.high_watermark,
        "durable_offset": info.durable_offset,
        "log_end_offset": info.log_end_offset,
        "leader_epoch": info.leader_epoch,
        "size_bytes": info.size_bytes,
        "segments": info.segments,
        "fencing_token": info.fencing_token,
        "failure": info.failure,
        "damaged": damaged.collect::<Vec<_>>(),
    })
}
