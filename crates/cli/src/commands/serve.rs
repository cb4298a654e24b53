//! `comlog serve`: configuration, logs, signals, and the server between them.

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use comlog_server::{
    Drain, LogFormat, LoggingConfig, SELF_SIGNED_CERT, Server, ServerConfig, StartError,
    SystemClock,
};
use comlog_storage::{StorageError, install_sigbus_guard};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

use crate::error::{CliError, Result};
use crate::output::Out;

/// How long threads that hang in the disk are waited for, once everything else has ended.
const THREADS_TIMEOUT: Duration = Duration::from_secs(1);

const AFTER_HELP: &str = "\
Every key that --print-config shows can be set: in the file, as COMLOG_SECTION__KEY in the
environment, or with --set SECTION.KEY=VALUE. Flags go over the environment, that over the file.

SIGTERM and SIGINT end the server after it has answered what is under way (exit code 0, or 1 when
drain_timeout_ms was not enough); a second one ends it at once (128 and the signal's number).
SIGHUP is ignored.

Examples:
  comlog serve
  comlog serve --data-dir /var/lib/comlog --listen 0.0.0.0:50052
  comlog serve --archive s3://bucket/comlog --set topic_defaults.local_retention_bytes=10GiB
  comlog serve --set topic_defaults.retention_ms=7d --set topics.auto_create=false
  comlog serve --print-config > comlog.toml && comlog serve --config comlog.toml";

/// Start a server; stops on SIGTERM or SIGINT after answering what is under way, on a second at once
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct ServeArgs {
    /// Where to listen; port 0 takes a free one [default: 127.0.0.1:50052]
    #[arg(long, value_name = "ADDR:PORT")]
    listen: Option<String>,
    /// Where the data lies; made when it is not there [default: ./comlog-data]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<String>,
    /// A TOML file with any of the keys that --print-config shows
    #[arg(long, env = "COMLOG_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// Set one key of the configuration; may be repeated
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = parse_setting)]
    settings: Vec<(String, String)>,
    /// Print the configuration in force as TOML, and stop
    #[arg(long)]
    print_config: bool,
    /// A PEM file with the certificate chain, to serve TLS
    #[arg(long, value_name = "FILE")]
    tls_cert: Option<String>,
    /// A PEM file with the private key of the certificate
    #[arg(long, value_name = "FILE")]
    tls_key: Option<String>,
    /// Serve TLS with a certificate made for localhost; for development
    #[arg(long)]
    tls_self_signed: bool,
    /// Keep sealed segments on an object store too: s3://, gs://, az://, file:// or memory://;
    /// credentials come from the environment (AWS_ACCESS_KEY_ID, AWS_ENDPOINT, ...)
    #[arg(long, value_name = "URL")]
    archive: Option<String>,
    /// Promise that no other server writes to the archive: for stores without conditional writes
    #[arg(long)]
    archive_single_writer: bool,
    /// An origin (`https://example.org`) whose pages may call this server; may be repeated
    #[arg(long = "cors-origin", value_name = "ORIGIN")]
    cors_origins: Vec<String>,
    /// How log lines look: text or json
    #[arg(long, value_name = "FORMAT")]
    log_format: Option<String>,
    /// What is logged: error, warn, info, debug, trace, or a list such as warn,comlog_server=debug
    #[arg(long, value_name = "LEVEL")]
    log_level: Option<String>,
}

fn parse_setting(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("use KEY=VALUE")?;
    Ok((key.trim().to_owned(), value.trim().to_owned()))
}

impl ServeArgs {
    /// The flags as configuration keys; a flag of its own goes over `--set`.
    fn settings(&self) -> Vec<(String, String)> {
        let mut all = self.settings.clone();
        let flags = [
            ("listen", &self.listen),
            ("data_dir", &self.data_dir),
            ("archive.url", &self.archive),
            ("tls.cert", &self.tls_cert),
            ("tls.key", &self.tls_key),
            ("log.format", &self.log_format),
            ("log.level", &self.log_level),
        ];
        let given = |(key, value): (&str, &Option<String>)| Some((key.to_owned(), value.clone()?));
        all.extend(flags.into_iter().filter_map(given));
        if self.tls_self_signed {
            all.push(("tls.self_signed".to_owned(), "true".to_owned()));
        }
        if self.archive_single_writer {
            all.push(("archive.single_writer".to_owned(), "true".to_owned()));
        }
        if !self.cors_origins.is_empty() {
            all.push(("http.cors_origins".to_owned(), self.cors_origins.join(",")));
        }
        all
    }
}

/// Runs the command: builds its own runtime, since the configuration says how many threads it has.
pub(crate) fn run(args: &ServeArgs, out: &mut Out) -> Result<()> {
    let env = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    let loaded = ServerConfig::load(args.config.as_deref(), env, &args.settings());
    let loaded = loaded.map_err(|error| CliError::Usage(format!("configuration: {error}")))?;
    if args.print_config {
        let text = loaded.config.to_toml();
        out.line(
            text.map_err(|error| CliError::Usage(error.to_string()))?
                .trim_end(),
        )?;
        return out.flush();
    }
    start_logging(&loaded.config.log)?;
    for warning in &loaded.warnings {
        tracing::warn!("{warning}");
    }
    let mut config = loaded.config;
    prepare_process();
    leave_descriptors_for_files(&mut config);
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    if config.worker_threads > 0 {
        builder.worker_threads(config.worker_threads);
    }
    let runtime = builder.enable_all().build();
    let runtime =
        runtime.map_err(|error| CliError::Failed(format!("cannot start threads: {error}")))?;
    let served = runtime.block_on(serve(config, out));
    runtime.shutdown_timeout(THREADS_TIMEOUT);
    served
}

async fn serve(config: ServerConfig, out: &mut Out) -> Result<()> {
    let signals = Signals::new()?;
    let (data_dir, self_signed) = (config.data_dir.clone(), config.tls.self_signed);
    let clock = SystemClock::new(Duration::from_millis(config.clock_jump_wait_ms));
    let server = Server::start(config, Arc::new(clock))
        .await
        .map_err(explain)?;
    let url = server.url();
    say_where(&data_dir, self_signed, &url);
    match out
        .line(format!("comlog ready {url}"))
        .and_then(|()| out.flush())
    {
        // Nobody wants to know, which is no reason not to serve.
        Ok(()) | Err(CliError::ClosedPipe) => {}
        Err(error) => return Err(error),
    }
    match server.run(signals.first()).await {
        Drain::Complete => Ok(()),
        Drain::CutOff => Err(CliError::Failed(
            "stopped before everything was answered and closed (drain_timeout_ms)".to_owned(),
        )),
    }
}

/// The signals that matter to a server.
struct Signals {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
}

impl Signals {
    fn new() -> Result<Signals> {
        let listen = |kind| {
            signal(kind).map_err(|error| CliError::Failed(format!("cannot watch signals: {error}")))
        };
        // By default this one ends the process when a file reaches its size limit; watched, the
        // write returns an error instead, and the partition says that there is no space.
        let _watched = listen(SignalKind::from_raw(SIGXFSZ))?;
        let mut hang_up = listen(SignalKind::hangup())?;
        tokio::spawn(async move {
            while hang_up.recv().await.is_some() {
                tracing::info!("SIGHUP ignored: the configuration is read at start only");
            }
        });
        Ok(Signals {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
        })
    }

    /// Completes with the next signal, and tells its number.
    async fn next(&mut self) -> i32 {
        tokio::select! {
            _ = self.terminate.recv() => SignalKind::terminate().as_raw_value(),
            _ = self.interrupt.recv() => SignalKind::interrupt().as_raw_value(),
        }
    }

    /// Completes with the first signal; the second one ends the process.
    async fn first(mut self) {
        self.next().await;
        tokio::spawn(async move {
            let signal = self.next().await;
            tracing::warn!("second signal, stopping at once");
            std::process::exit(128 + signal);
        });
    }
}

/// Where clients look for a server unless told otherwise.
const DEFAULT_URL: &str = "http://127.0.0.1:50052";

/// Number of "file size limit exceeded" on Linux.
const SIGXFSZ: i32 = 25;

/// Tells a person where the data is and what to try; stdout stays for programs.
fn say_where(data_dir: &Path, self_signed: bool, url: &str) {
    let path = std::fs::canonicalize(data_dir).unwrap_or_else(|_| data_dir.to_owned());
    let mut server = String::new();
    if url != DEFAULT_URL {
        server = format!(" --server {url}");
    }
    if self_signed {
        let cert = path.join(SELF_SIGNED_CERT);
        server += &format!(" --ca-cert {}", cert.display());
    }
    let hint = format!(
        "data in {}\ntry:  echo hello | comlog produce greetings{server}\n      comlog consume greetings{server}\n",
        path.display()
    );
    // Whoever closed stderr does not want to know.
    drop(std::io::stderr().write_all(hint.as_bytes()));
}

fn start_logging(config: &LoggingConfig) -> Result<()> {
    let filter = EnvFilter::try_new(&config.level)
        .map_err(|error| CliError::Usage(format!("log.level {:?}: {error}", config.level)))?;
    let colors = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
        && std::io::stderr().is_terminal();
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        // It would panic when stderr is closed.
        .log_internal_errors(false)
        .with_ansi(colors);
    match config.format {
        LogFormat::Text => builder.init(),
        LogFormat::Json => builder.json().init(),
    }
    Ok(())
}

/// What the process needs of the system; it can do without, so failures are only told.
fn prepare_process() {
    if let Err(error) = install_sigbus_guard() {
        tracing::warn!(%error, "no guard against files cut short while they are read");
    }
    let limit = getrlimit(Resource::Nofile);
    let raised = setrlimit(
        Resource::Nofile,
        Rlimit {
            current: limit.maximum,
            maximum: limit.maximum,
        },
    );
    if let Err(error) = raised {
        tracing::debug!(%error, "cannot raise the limit of open files");
    }
}

/// Files opened beside one for each partition: sealed segments that are read, and what is written.
const FILES_BESIDE: u64 = 512;

/// Connections must not take the descriptors that partitions need to roll and to be read: of a low
/// limit they get half, of one that has room for all partitions what those leave.
fn leave_descriptors_for_files(config: &mut ServerConfig) {
    let Some(limit) = getrlimit(Resource::Nofile).current else {
        return;
    };
    let files = u64::from(config.topics.partitions_max) + FILES_BESIDE;
    let room = limit.saturating_sub(files).max(limit / 2).max(1);
    let room = usize::try_from(room).unwrap_or(usize::MAX);
    let wanted = config.http.connections_max;
    if room < wanted {
        tracing::warn!(
            wanted,
            connections_max = room,
            limit,
            "http.connections_max lowered: the limit of open files leaves room for no more beside those of the partitions"
        );
        config.http.connections_max = room;
    }
}

/// Says what to do.
fn explain(error: StartError) -> CliError {
    let message = match &error {
        StartError::Listen { address, source }
            if source.kind() == std::io::ErrorKind::AddrInUse =>
        {
            format!(
                "port {} is in use: stop the server there, or choose another with --listen {}:0",
                address.port(),
                address.ip()
            )
        }
        StartError::Listen { source, .. }
            if source.kind() == std::io::ErrorKind::PermissionDenied =>
        {
            format!("{error}: ports below 1024 need privileges, choose another with --listen")
        }
        StartError::DataDir {
            source: source @ StorageError::Locked { .. },
            ..
        } => format!("{source}: stop that server, or choose another directory with --data-dir"),
        StartError::DataDir {
            source: source @ StorageError::UnknownFormat { .. },
            ..
        } => {
            format!("{source}; nothing was changed. Choose another directory with --data-dir")
        }
        _ => error.to_string(),
    };
    CliError::Failed(message)
}
