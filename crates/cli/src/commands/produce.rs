//! `comlog produce TOPIC [FILE]`.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, IsTerminal, Read};
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use clap::{Args, ValueEnum};
use comlog_client::{Delivered, Delivery, Producer, ProducerConfig, ProducerRecord};
use comlog_proto::v1;
use comlog_record::HeaderRef;
use indicatif::{ProgressBar, ProgressStyle};
use tokio::sync::mpsc;

use crate::commands::topic::Durability;
use crate::connect::ServerArgs;
use crate::error::{CliError, Result};
use crate::escape;
use crate::frame_reader::{FrameReader, Framing};
use crate::output::Out;
use crate::summary::Summary;
use crate::units;

/// So many refused records are named; more are only counted.
const REFUSED_NAMED_MAX: u64 = 10;
/// Groups of records read ahead, each at most what one read of the input gives.
const GROUPS_AHEAD: usize = 4;

/// Appends records from standard input or a file: one a line unless told otherwise
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  echo hello | comlog produce greetings
  comlog produce orders orders.csv --key-separator , --compression zstd
  comlog produce photos --framing length --header camera=2 < frames.bin

A line's newline is not part of its record, and a last line without one is a record too. With
--framing keep-newlines and `consume --framing none` the exact bytes of the input come back.

A retry after a broken connection neither loses nor doubles a record. At the end, and after Ctrl-C,
the number of acknowledged records and their offsets are printed on standard error, and how many
were refused or are in doubt. A record too large for the topic is refused alone, named, and the
others go on; any other failure ends the input. A partition that has failed is tried until
--delivery-timeout, since a restart of the server may mend it.")]
pub(crate) struct ProduceArgs {
    /// The topic
    topic: String,
    /// Where the records are; standard input when absent
    file: Option<PathBuf>,
    /// How records are told apart
    #[arg(long, value_enum, default_value_t)]
    framing: Framing,
    /// What stands before the first of these is the record's key; a record without one is an error (\t \n \0 \xHH \\ as in printf)
    #[arg(short, long, value_name = "TEXT", value_parser = escape::parse_separator)]
    key_separator: Option<Bytes>,
    /// A header for every record; may repeat
    #[arg(short = 'H', long = "header", value_name = "NAME=VALUE", value_parser = parse_header)]
    headers: Vec<(Bytes, Bytes)>,
    /// How batches are compressed
    #[arg(short, long, value_enum, default_value_t)]
    compression: Codec,
    /// Append to this partition; else records with a key go where Kafka would put them, others are spread
    #[arg(short, long)]
    partition: Option<u32>,
    /// What an acknowledgement promises, when more than the topic's
    #[arg(long, value_enum)]
    durability: Option<Durability>,
    #[command(flatten)]
    batching: BatchingArgs,
    /// The largest record accepted
    #[arg(long, value_name = "SIZE", default_value = "1MiB", value_parser = units::parse_u32)]
    record_bytes_max: u32,
    /// Show no progress bar
    #[arg(long)]
    no_progress: bool,
}

/// How records are gathered into batches.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Batching")]
pub(crate) struct BatchingArgs {
    /// Send a batch when it is this large
    #[arg(long, value_name = "SIZE", default_value = "1MiB", value_parser = units::parse_u32)]
    pub(crate) batch_bytes: u32,
    /// Wait this long for a batch to fill; with 0ms it fills while the one before is under way
    #[arg(long, value_name = "SPAN", default_value = "0ms", value_parser = units::parse_duration)]
    pub(crate) linger: Duration,
    /// Stop reading input while this much is not acknowledged
    #[arg(long, value_name = "SIZE", default_value = "32MiB", value_parser = units::parse_u32)]
    pub(crate) buffer_bytes: u32,
    /// Give a record up when it is not acknowledged after this long
    #[arg(long, value_name = "SPAN", default_value = "2m", value_parser = units::parse_duration)]
    pub(crate) delivery_timeout: Duration,
}

impl ProduceArgs {
    fn config(&self) -> ProducerConfig {
        let durability = self
            .durability
            .map_or(v1::Durability::Unspecified, Durability::to_proto);
        self.batching
            .config()
            .compression(self.compression.to_record())
            .durability(durability)
            .retry_failed_partitions(true)
            .record_bytes_max(self.record_bytes_max as usize)
    }
}

impl BatchingArgs {
    /// The producer's options.
    pub(crate) fn config(&self) -> ProducerConfig {
        ProducerConfig::new()
            .batch_bytes(self.batch_bytes as usize)
            .linger(self.linger)
            .buffer_bytes_max(self.buffer_bytes as usize)
            .delivery_timeout(self.delivery_timeout)
    }
}

/// A codec of the format.
#[derive(Debug, Clone, Copy, Default, ValueEnum)]
pub(crate) enum Codec {
    /// Not compressed
    #[default]
    None,
    /// gzip
    Gzip,
    /// Snappy
    Snappy,
    /// LZ4
    Lz4,
    /// Zstandard
    Zstd,
}

impl Codec {
    /// The format's value.
    pub(crate) fn to_record(self) -> comlog_record::Compression {
        match self {
            Codec::None => comlog_record::Compression::None,
            Codec::Gzip => comlog_record::Compression::Gzip,
            Codec::Snappy => comlog_record::Compression::Snappy,
            Codec::Lz4 => comlog_record::Compression::Lz4,
            Codec::Zstd => comlog_record::Compression::Zstd,
        }
    }
}

fn parse_header(text: &str) -> Result<(Bytes, Bytes), String> {
    let (name, value) = text.split_once('=').ok_or("use NAME=VALUE")?;
    Ok((name.to_owned().into(), value.to_owned().into()))
}

/// Runs the command.
pub(crate) async fn run(args: &ProduceArgs, server: &ServerArgs, out: &mut Out) -> Result<()> {
    let producer = Producer::new(&server.client()?, args.config())?;
    let progress = progress_bar(args);
    let mut groups = read_input(args, &progress)?;
    let mut sending = Sending {
        args,
        producer: &producer,
        progress: &progress,
        taken: 0,
        pending: VecDeque::new(),
        summary: Summary::default(),
        failure: None,
    };
    let sent = tokio::select! {
        biased;
        () = interrupt() => Err(CliError::Failed("interrupted".to_owned())),
        sent = sending.send_all(&mut groups) => sent,
    };
    // Whatever happened: what was taken is on its way, and is waited for.
    let closed = tokio::select! {
        biased;
        () = interrupt() => Err(CliError::Failed("interrupted".to_owned())),
        closed = producer.close() => closed.map_err(CliError::from),
    };
    sending.settle_all();
    progress.finish_and_clear();
    eprintln!("{}", sending.summary.to_text(&args.topic));
    if out.is_json() {
        out.json(&sending.summary.to_json(&args.topic))?;
        out.flush()?;
    }
    sent.and(sending.failure.map_or(Ok(()), Err)).and(closed)
}

/// Resolves at Ctrl-C; never where the signal cannot be caught.
async fn interrupt() {
    if tokio::signal::ctrl_c().await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// The key and the value of a record.
type KeyValue<'r> = (Option<&'r [u8]>, Option<&'r [u8]>);

/// Where the command stands.
struct Sending<'a> {
    args: &'a ProduceArgs,
    producer: &'a Producer,
    progress: &'a ProgressBar,
    /// Records taken from the input.
    taken: u64,
    /// Not acknowledged when last looked at, with their numbers; bounded by the producer's buffer.
    pending: VecDeque<(u64, Delivery)>,
    summary: Summary,
    /// Of the first record that failed.
    failure: Option<CliError>,
}

impl Sending<'_> {
    async fn send_all(&mut self, groups: &mut mpsc::Receiver<Group>) -> Result<()> {
        let headers: Vec<HeaderRef<'_>> = self
            .args
            .headers
            .iter()
            .map(|(name, value)| (&name[..], Some(&value[..])))
            .collect();
        while let Some(group) = groups.recv().await {
            for record in group.map_err(|error| CliError::Failed(format!("input: {error}")))? {
                self.taken += 1;
                let (key, value) = self.split(record.as_deref())?;
                let record = ProducerRecord {
                    topic: &self.args.topic,
                    partition: self.args.partition,
                    key,
                    value,
                    headers: &headers,
                    timestamp: None,
                };
                let delivery = self.producer.send(record).await?;
                self.pending.push_back((self.taken, delivery));
            }
            if !self.settle() {
                return Ok(());
            }
            self.progress
                .set_message(format!("{} acknowledged", self.summary.records));
        }
        Ok(())
    }

    /// Key and value of a record.
    fn split<'r>(&self, record: Option<&'r [u8]>) -> Result<KeyValue<'r>> {
        let (Some(separator), Some(record)) = (&self.args.key_separator, record) else {
            return Ok((None, record));
        };
        match memchr::memmem::find(record, separator) {
            Some(at) => Ok((Some(&record[..at]), Some(&record[at + separator.len()..]))),
            None => Err(CliError::Failed(format!(
                "record {} holds no \"{}\"",
                self.taken,
                separator.escape_ascii()
            ))),
        }
    }

    /// Counts what was decided meanwhile; `false` when no more is to be sent.
    fn settle(&mut self) -> bool {
        let mut goes_on = true;
        let decided = |(_, delivery): &(u64, Delivery)| delivery.try_result();
        while let Some(result) = self.pending.front().and_then(decided) {
            if let Some((number, _)) = self.pending.pop_front() {
                goes_on &= self.count(number, result);
            }
        }
        goes_on
    }

    /// Counts everything, decided or not.
    fn settle_all(&mut self) {
        for (number, delivery) in std::mem::take(&mut self.pending) {
            match delivery.try_result() {
                Some(result) => drop(self.count(number, result)),
                None => self.summary.in_doubt += 1,
            }
        }
    }

    /// Counts a record; `false` when others would fare no better.
    fn count(&mut self, number: u64, result: Result<Delivered, comlog_client::Error>) -> bool {
        let error = match result {
            Ok(delivered) => {
                let offset = delivered.offset.map(|offset| offset.0);
                self.summary.add(delivered.partition, offset);
                return true;
            }
            Err(error) => error,
        };
        self.summary.add_failed(&error);
        let alone = error.reason() == v1::Reason::BatchTooLarge;
        let error = CliError::from(error).about(format_args!("record {number}"));
        match &self.failure {
            None => self.failure = Some(error),
            Some(_) if alone && self.summary.refused <= REFUSED_NAMED_MAX => {
                self.progress.suspend(|| eprintln!("comlog: {error}"));
            }
            Some(_) => {}
        }
        alone
    }
}

type Group = io::Result<Vec<Option<Bytes>>>;

/// Reads the input on a thread of its own, which the end of the process does not wait for.
fn read_input(args: &ProduceArgs, progress: &ProgressBar) -> Result<mpsc::Receiver<Group>> {
    let input: Box<dyn Read + Send> = match &args.file {
        Some(path) => {
            Box::new(File::open(path).map_err(|error| CliError::file(path.display(), &error))?)
        }
        None => Box::new(io::stdin()),
    };
    let input = progress.wrap_read(input);
    let mut frames = FrameReader::new(input, args.framing, args.record_bytes_max as usize);
    let (sender, receiver) = mpsc::channel(GROUPS_AHEAD);
    std::thread::spawn(move || {
        while let Some(group) = frames.next_group().transpose() {
            let failed = group.is_err();
            if sender.blocking_send(group).is_err() || failed {
                break;
            }
        }
    });
    Ok(receiver)
}

/// A bar when the length of the input is known, else a counter; nothing without a terminal.
fn progress_bar(args: &ProduceArgs) -> ProgressBar {
    let typed = args.file.is_none() && io::stdin().is_terminal();
    if args.no_progress || typed || !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let length = args
        .file
        .as_ref()
        .and_then(|path| std::fs::metadata(path).ok())
        .map(|file| file.len());
    let (bar, template) = match length {
        Some(length) => (
            ProgressBar::new(length),
            "{bar:30} {bytes}/{total_bytes} {bytes_per_sec} eta {eta} {msg}",
        ),
        None => (
            ProgressBar::new_spinner(),
            "{spinner} {bytes} {bytes_per_sec} {msg}",
        ),
    };
    bar.with_style(
        ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()),
    )
}
