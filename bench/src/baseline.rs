//! What the machine allows: the disk, memory and loopback, without any log.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Instant;

use rustix::fs::FallocateFlags;

use serde::Serialize;

use crate::Result;
use crate::cases::Scale;
use crate::echo::EchoProcess;
use crate::measure::{Usage, percentile};

/// What the machine allows, at this moment. Times in microseconds, rates per second.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Baselines {
    pub(crate) sync_p50: f64,
    pub(crate) sync_p99: f64,
    /// Bytes, a sync each MiB.
    pub(crate) disk: f64,
    /// Bytes, a sync each 64 MiB.
    pub(crate) disk_bulk: f64,
    pub(crate) memcpy: f64,
    pub(crate) loopback: f64,
    pub(crate) echo_p50: f64,
    pub(crate) echo_p99: f64,
    /// Unary calls, 64 in flight.
    pub(crate) echo_rate: f64,
    /// Bytes, in messages of 1 MiB.
    pub(crate) echo_upload: f64,
    /// Server CPU per MB of that.
    pub(crate) echo_upload_cpu: f64,
    pub(crate) echo_download: f64,
    pub(crate) echo_download_cpu: f64,
}

impl Baselines {
    /// Takes them all; a few seconds.
    pub(crate) async fn measure(dir: &Path, scale: Scale) -> Result<Baselines> {
        let Sizes { syncs, mib, calls } = Sizes::of(scale);
        let sync = sync_latency(dir, syncs)?;
        let disk = sync_bandwidth(dir, mib, 1)?;
        let disk_bulk = sync_bandwidth(dir, mib, 64)?;
        let loopback = loopback(mib << 22)?;
        let echo = EchoProcess::start().await?;
        let (echo_p50, echo_p99) = echo.unary_latency(calls).await?;
        let echo_rate = echo.unary_rate(64, 10 * calls).await?;
        let bytes = (mib << 22) as f64 / 1e6;
        let before = Usage::of(echo.pid());
        let echo_upload = echo.upload(1 << 20, 4 * mib as usize).await?;
        let between = Usage::of(echo.pid());
        let echo_download = echo.download(1 << 20, 4 * mib as u32).await?;
        let after = Usage::of(echo.pid());
        Ok(Baselines {
            sync_p50: sync.p50,
            sync_p99: sync.p99,
            disk,
            disk_bulk,
            memcpy: memcpy(),
            loopback,
            echo_p50,
            echo_p99,
            echo_rate,
            echo_upload,
            echo_upload_cpu: between.since(before).cpu.as_secs_f64() * 1e6 / bytes,
            echo_download,
            echo_download_cpu: after.since(between).cpu.as_secs_f64() * 1e6 / bytes,
        })
    }

    /// What one durable append through a server may take: p50 and p99.
    pub(crate) fn append_allowed(&self) -> (f64, f64) {
        (
            self.echo_p50 + 1.25 * self.sync_p50,
            self.echo_p99 + 2.0 * self.sync_p99,
        )
    }

    /// Name, unit and value of each, for people.
    pub(crate) fn figures(&self) -> [(&'static str, &'static str, f64); 13] {
        [
            ("4 KiB append + fdatasync, p50", "us", self.sync_p50),
            ("4 KiB append + fdatasync, p99", "us", self.sync_p99),
            ("1 MiB append + fdatasync", "MB/s", self.disk / 1e6),
            ("a sync each 64 MiB", "MB/s", self.disk_bulk / 1e6),
            ("memcpy, one core", "MB/s", self.memcpy / 1e6),
            ("loopback TCP", "MB/s", self.loopback / 1e6),
            ("tonic echo, p50", "us", self.echo_p50),
            ("tonic echo, p99", "us", self.echo_p99),
            ("tonic echo, 64 in flight", "1/s", self.echo_rate),
            (
                "tonic upload, 1 MiB messages",
                "MB/s",
                self.echo_upload / 1e6,
            ),
            ("tonic upload, server CPU", "us/MB", self.echo_upload_cpu),
            (
                "tonic download, 1 MiB messages",
                "MB/s",
                self.echo_download / 1e6,
            ),
            (
                "tonic download, server CPU",
                "us/MB",
                self.echo_download_cpu,
            ),
        ]
    }
}

/// How much the baselines do.
struct Sizes {
    syncs: usize,
    /// Written to the disk; four times that through sockets.
    mib: u64,
    /// One after the other; ten times that with 64 in flight.
    calls: usize,
}

impl Sizes {
    fn of(scale: Scale) -> Sizes {
        let (syncs, mib, calls) = match scale {
            Scale::Whole => (2_000, 1_024, 4_000),
            Scale::Quick => (500, 256, 1_000),
            Scale::Smoke => (20, 4, 64),
        };
        Sizes { syncs, mib, calls }
    }
}

/// Microseconds of an append followed by fdatasync: median and 99th percentile.
#[derive(Debug, Clone, Copy)]
struct SyncLatency {
    p50: f64,
    p99: f64,
}

/// A file allocated ahead, as comlog prepares its own segments.
fn prepared(dir: &Path, len: u64) -> io::Result<File> {
    let path = dir.join("baseline.log");
    let file = OpenOptions::new()
        .create(true)
        .truncate(true)
        .write(true)
        .open(&path)?;
    rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, len)?;
    file.sync_all()?;
    // The name is not needed again, and so nothing is left behind.
    std::fs::remove_file(path)?;
    Ok(file)
}

/// Appends 4 KiB `count` times, each with its own fdatasync.
fn sync_latency(dir: &Path, count: usize) -> io::Result<SyncLatency> {
    let file = prepared(dir, (count as u64) << 12)?;
    let block = vec![0x5a; 4 << 10];
    let mut micros = Vec::with_capacity(count);
    for index in 0..count {
        let started = Instant::now();
        file.write_all_at(&block, (index as u64) << 12)?;
        file.sync_data()?;
        micros.push(started.elapsed().as_secs_f64() * 1e6);
    }
    Ok(SyncLatency {
        p50: percentile(&mut micros, 0.5),
        p99: percentile(&mut micros, 0.99),
    })
}

/// Bytes per second written in blocks of 1 MiB, with an fdatasync each `blocks_per_sync`.
fn sync_bandwidth(dir: &Path, blocks: u64, blocks_per_sync: u64) -> io::Result<f64> {
    let file = prepared(dir, blocks << 20)?;
    let block = vec![0x5a; 1 << 20];
    let started = Instant::now();
    for index in 0..blocks {
        file.write_all_at(&block, index << 20)?;
        if (index + 1) % blocks_per_sync == 0 {
            file.sync_data()?;
        }
    }
    file.sync_data()?;
    Ok((blocks << 20) as f64 / started.elapsed().as_secs_f64())
}

/// Bytes per second that one core copies from memory to memory, far beyond its caches.
fn memcpy() -> f64 {
    const LEN: usize = 256 << 20;
    let source = vec![0x5a_u8; LEN];
    let mut target = vec![0_u8; LEN];
    target.copy_from_slice(&source); // touches every page before the clock runs
    let started = Instant::now();
    target.copy_from_slice(&source);
    let seconds = started.elapsed().as_secs_f64();
    std::hint::black_box(&target);
    LEN as f64 / seconds
}

/// Bytes per second through one TCP connection on loopback, in blocks of 256 KiB.
fn loopback(bytes: u64) -> io::Result<f64> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let receiver = std::thread::spawn(move || -> io::Result<()> {
        let (mut stream, _) = listener.accept()?;
        let mut block = vec![0; 256 << 10];
        while stream.read(&mut block)? > 0 {}
        stream.write_all(&[1])
    });
    let mut stream = TcpStream::connect(address)?;
    let block = vec![0x5a; 256 << 10];
    let started = Instant::now();
    for _ in 0..bytes.div_ceil(block.len() as u64) {
        stream.write_all(&block)?;
    }
    stream.shutdown(std::net::Shutdown::Write)?;
    stream.read_exact(&mut [0])?;
    let seconds = started.elapsed().as_secs_f64();
    receiver
        .join()
        .map_err(|_| io::Error::other("the receiver panicked"))??;
    Ok(bytes as f64 / seconds)
}
