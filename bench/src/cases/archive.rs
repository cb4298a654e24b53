//! Archived records, read from the start, beside plain GETs of the objects that hold them.
//!
//! The store is garage, a real S3 server, as a process of its own. Everything is archived and nothing
//! of it stays on the server's disk; the server is started anew before each reading, so its cache is
//! empty. What is compared are bytes of segments per second, of the same objects, one after the other.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use comlog_client::{Client, ClientConfig, Consumer, ConsumerConfig, ProducerRecord, StartAt};
use futures_util::{StreamExt, TryStreamExt, stream};
use object_store::aws::{AmazonS3, AmazonS3Builder};
use object_store::path::Path as Key;
use object_store::{ObjectStore, ObjectStoreExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, Command};
use tokio::task::JoinSet;

use super::{Context, produce};
use crate::Result;
use crate::report::{Figure, Goal};
use crate::server::Server;

const PARTITIONS: u32 = 4;
const RECORD_BYTES: usize = 1024;
/// 1 GiB of values in all.
const RECORDS: u64 = 1 << 20;
const SEGMENT_BYTES: &str = "32MiB";
const GOAL: f64 = 0.8;
const POLL: Duration = Duration::from_secs(60);
const PATIENCE: Duration = Duration::from_secs(600);
const BUCKET: &str = "comlog";
const REGION: &str = "bench";
const ACCESS_KEY: &str = "GK0123456789abcdef01234567";
const SECRET_KEY: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

pub(super) async fn run(context: &Context) -> Result<Vec<Figure>> {
    let records = context.scaled(RECORDS).next_multiple_of(PARTITIONS.into());
    let garage = Garage::start(&context.dir.join("garage")).await?;
    fill(context, &garage, records).await?;
    let objects = garage.objects().await?;
    let bytes: u64 = objects.iter().map(|(_, len)| len).sum();
    let mut figures = Vec::new();
    for (name, beside, at_once) in [
        (
            "one partition after another",
            "plain GETs, one at a time",
            1,
        ),
        ("four partitions at once", "plain GETs, four at a time", 4),
    ] {
        let plain = garage.get_all(&objects, at_once).await?;
        let read = read_all(context, &garage, records, at_once).await?;
        let megabytes = bytes as f64 / 1e6;
        let figure = Figure::new(name, "MB/s", megabytes / read.seconds)
            .beside(beside, megabytes / plain)
            .goal(Goal::RatioAtLeast(GOAL));
        figures.push(figure);
        let cpu = 1e6 * read.server_cpu / megabytes;
        figures.push(Figure::new(format!("{name}, server CPU"), "us/MB", cpu));
    }
    garage.stop().await?;
    Ok(figures)
}

async fn server(context: &Context, garage: &Garage) -> Result<Server> {
    let data = context.dir.join("data");
    let settings = [
        "archive.single_writer=true".to_owned(),
        format!("archive.url=s3://{BUCKET}/bench"),
        "topic_defaults.local_retention_bytes=0".to_owned(),
        format!("topic_defaults.segment_bytes={SEGMENT_BYTES}"),
    ];
    Server::start_with(&context.binary, &data, |command| {
        for setting in &settings {
            command.args(["--set", setting]);
        }
        command.envs(garage.environment());
    })
    .await
}

/// Produces, archives, and waits until the server's disk has none of it.
async fn fill(context: &Context, garage: &Garage, records: u64) -> Result<()> {
    let server = server(context, garage).await?;
    server.create_topic("t", PARTITIONS).await?;
    let mut tasks = JoinSet::new();
    for partition in 0..PARTITIONS {
        let producer = produce::producer(&server, RECORD_BYTES)?;
        let share = records / u64::from(PARTITIONS);
        tasks.spawn(send(producer, partition, share));
    }
    while let Some(sent) = tasks.join_next().await {
        sent??;
    }
    let client = Client::new(ClientConfig::new(&server.url).request_timeout(PATIENCE))?;
    client.flush_archive(vec!["t".to_owned()]).await?;
    let started = Instant::now();
    loop {
        let status = client.archive_status(vec!["t".to_owned()]).await?;
        let mut partitions = status.partitions.iter();
        if partitions.all(|one| one.local_start_offset == one.log_end_offset) {
            break;
        }
        if started.elapsed() > PATIENCE {
            return Err("what is archived does not leave the disk".into());
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    server.stop().await
}

/// Values that no store can compress.
async fn send(producer: comlog_client::Producer, partition: u32, count: u64) -> Result<()> {
    let mut state = 0x9e37_79b9_7f4a_7c15 ^ u64::from(partition);
    let mut value = vec![0; RECORD_BYTES];
    for _ in 0..count {
        for word in value.chunks_exact_mut(8) {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            word.copy_from_slice(&state.to_le_bytes());
        }
        let record = ProducerRecord::new("t", &value).partition(partition);
        // What became of it shows when the producer is closed.
        drop(producer.send(record).await?);
    }
    Ok(producer.close().await?)
}

struct Read {
    seconds: f64,
    server_cpu: f64,
}

/// Reads everything with one consumer, so many partitions at once.
async fn read_all(
    context: &Context,
    garage: &Garage,
    records: u64,
    at_once: usize,
) -> Result<Read> {
    let server = server(context, garage).await?;
    let before = server.usage();
    let started = Instant::now();
    let partitions: Vec<u32> = (0..PARTITIONS).collect();
    let share = records / u64::from(PARTITIONS);
    let mut bytes = 0;
    for partitions in partitions.chunks(at_once) {
        bytes += read(&server, partitions, share * partitions.len() as u64).await?;
    }
    let seconds = started.elapsed().as_secs_f64();
    let server_cpu = server.usage().since(before).cpu.as_secs_f64();
    server.stop().await?;
    if bytes != records * RECORD_BYTES as u64 {
        return Err(format!("{bytes} bytes came of {records} records").into());
    }
    Ok(Read {
        seconds,
        server_cpu,
    })
}

/// Reads `records` records of these partitions and returns the bytes of their values.
async fn read(server: &Server, partitions: &[u32], records: u64) -> Result<u64> {
    let mut consumer = Consumer::new(&server.client()?, ConsumerConfig::new())?;
    for &partition in partitions {
        consumer.assign("t", partition, StartAt::Earliest);
    }
    let (mut count, mut bytes) = (0, 0);
    while count < records {
        let batches = consumer.poll(POLL).await?;
        if batches.is_empty() {
            return Err(format!("only {count} of {records} records came").into());
        }
        for record in batches.iter().flat_map(|batch| batch.iter()) {
            bytes += record?.value.map_or(0, <[u8]>::len) as u64;
            count += 1;
        }
    }
    Ok(bytes)
}

/// garage with one bucket; killed when dropped.
struct Garage {
    child: Child,
    port: u16,
    store: Arc<AmazonS3>,
}

impl Garage {
    async fn start(dir: &Path) -> Result<Garage> {
        tokio::fs::create_dir_all(dir).await?;
        let (port, rpc, admin) = (free_port().await?, free_port().await?, free_port().await?);
        let at = dir.display();
        let config = format!(
            "metadata_dir = \"{at}/meta\"\ndata_dir = \"{at}/data\"\ndb_engine = \"lmdb\"\n\
             replication_factor = 1\nrpc_bind_addr = \"127.0.0.1:{rpc}\"\n\
             rpc_public_addr = \"127.0.0.1:{rpc}\"\nrpc_secret = \"{SECRET_KEY}\"\n\
             [s3_api]\ns3_region = \"{REGION}\"\napi_bind_addr = \"127.0.0.1:{port}\"\n\
             [admin]\napi_bind_addr = \"127.0.0.1:{admin}\"\n"
        );
        let file = dir.join("garage.toml");
        tokio::fs::write(&file, config).await?;
        let child = Command::new(garage_binary().await?)
            .arg("-c")
            .arg(&file)
            .args(["server", "--single-node", "--default-bucket"])
            .env("GARAGE_DEFAULT_ACCESS_KEY", ACCESS_KEY)
            .env("GARAGE_DEFAULT_SECRET_KEY", SECRET_KEY)
            .env("GARAGE_DEFAULT_BUCKET", BUCKET)
            .env("RUST_LOG", "garage=error")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()?;
        let store = Arc::new(client(port)?);
        let garage = Garage { child, port, store };
        garage.wait().await?;
        Ok(garage)
    }

    /// Until it answers.
    async fn wait(&self) -> Result<()> {
        let started = Instant::now();
        while TcpStream::connect(("127.0.0.1", self.port)).await.is_err() {
            if started.elapsed() > POLL {
                return Err("garage does not start".into());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }

    /// What comlog needs to reach it.
    fn environment(&self) -> [(&'static str, String); 5] {
        [
            ("AWS_ACCESS_KEY_ID", ACCESS_KEY.to_owned()),
            ("AWS_SECRET_ACCESS_KEY", SECRET_KEY.to_owned()),
            ("AWS_ENDPOINT", endpoint(self.port)),
            ("AWS_REGION", REGION.to_owned()),
            ("AWS_ALLOW_HTTP", "true".to_owned()),
        ]
    }

    /// The segments of the topic, partition by partition, and their bytes.
    async fn objects(&self) -> Result<Vec<(Key, u64)>> {
        let mut found = Vec::new();
        let mut listed = self.store.list(Some(&Key::from("bench/topics")));
        while let Some(object) = listed.try_next().await? {
            if object.location.as_ref().ends_with(".log") {
                found.push((object.location, object.size));
            }
        }
        found.sort();
        Ok(found)
    }

    /// GETs every object whole, so many at once; returns the seconds it took.
    async fn get_all(&self, objects: &[(Key, u64)], at_once: usize) -> Result<f64> {
        let started = Instant::now();
        let got =
            stream::iter(objects.to_vec()).map(|(key, len)| get(self.store.clone(), key, len));
        got.buffer_unordered(at_once).try_collect::<()>().await?;
        Ok(started.elapsed().as_secs_f64())
    }

    async fn stop(mut self) -> Result<()> {
        Ok(self.child.kill().await?)
    }
}

async fn get(store: Arc<AmazonS3>, key: Key, len: u64) -> Result<()> {
    let mut content = store.get(&key).await?.into_stream();
    let mut bytes = 0;
    while let Some(piece) = content.try_next().await? {
        bytes += piece.len() as u64;
    }
    if bytes != len {
        return Err(format!("{bytes} bytes of {len} came of {key}").into());
    }
    Ok(())
}

fn endpoint(port: u16) -> String {
    format!("http://127.0.0.1:{port}")
}

fn client(port: u16) -> Result<AmazonS3> {
    // The HTTP client takes the process's cryptography, even where there is none to do.
    drop(rustls::crypto::ring::default_provider().install_default());
    let store = AmazonS3Builder::new()
        .with_bucket_name(BUCKET)
        .with_region(REGION)
        .with_endpoint(endpoint(port))
        .with_allow_http(true)
        .with_access_key_id(ACCESS_KEY)
        .with_secret_access_key(SECRET_KEY)
        .build()?;
    Ok(store)
}

/// Where garage is; `ci/garage` installs it first if it is missing.
async fn garage_binary() -> Result<PathBuf> {
    if let Some(binary) = std::env::var_os("GARAGE_BIN") {
        return Ok(binary.into());
    }
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../ci/garage");
    let found = Command::new(script)
        .stderr(Stdio::inherit())
        .output()
        .await
        .map_err(|error| format!("{script}: {error}"))?;
    let path = String::from_utf8(found.stdout)?;
    match path.trim() {
        "" => Err("ci/garage did not install garage".into()),
        path => Ok(path.into()),
    }
}

async fn free_port() -> Result<u16> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    Ok(listener.local_addr()?.port())
}
