//! What goes wrong for a person at a terminal, and the one map from it to an exit code.

use std::io;
use std::process::ExitCode;

use comlog_client::ErrorKind;

/// The result of a command.
pub(crate) type Result<T, E = CliError> = std::result::Result<T, E>;

/// What to do when there is no server.
const START_HELP: &str =
    "start one with `comlog serve`, or name another with --server URL or COMLOG_SERVER";

/// Why a command failed; the message says what to do where there is something to do.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CliError {
    /// Anything that has no code of its own.
    #[error("{0}")]
    Failed(String),
    /// The command line is wrong in a way that clap cannot see.
    #[error("{0}")]
    Usage(String),
    /// No such topic, partition, group or file.
    #[error("{0}")]
    NotFound(String),
    /// The server cannot be reached, is overloaded, or did not answer in time.
    #[error("{0}")]
    Unavailable(String),
    /// An offset outside the log.
    #[error("{0}")]
    OutOfRange(String),
    /// Damage was found; it has been reported.
    #[error("{0}")]
    Corrupt(String),
    /// Whoever read our output has gone, which is no error.
    #[error("the reader of the output has gone")]
    ClosedPipe,
}

impl CliError {
    /// The exit code: the same for every command.
    pub(crate) fn exit_code(&self) -> ExitCode {
        ExitCode::from(match self {
            CliError::ClosedPipe => 0,
            CliError::Failed(_) => 1,
            CliError::Usage(_) => 2,
            CliError::NotFound(_) => 3,
            CliError::Unavailable(_) => 4,
            CliError::OutOfRange(_) => 5,
            CliError::Corrupt(_) => 6,
        })
    }

    /// The same with `what` it is about before it.
    pub(crate) fn about(self, what: impl std::fmt::Display) -> CliError {
        let say = |message| format!("{what}: {message}");
        match self {
            CliError::Failed(message) => CliError::Failed(say(message)),
            CliError::Usage(message) => CliError::Usage(say(message)),
            CliError::NotFound(message) => CliError::NotFound(say(message)),
            CliError::Unavailable(message) => CliError::Unavailable(say(message)),
            CliError::OutOfRange(message) => CliError::OutOfRange(say(message)),
            CliError::Corrupt(message) => CliError::Corrupt(say(message)),
            CliError::ClosedPipe => CliError::ClosedPipe,
        }
    }

    /// An error of reading or writing `what`, a file or "standard input".
    pub(crate) fn file(what: impl std::fmt::Display, error: &io::Error) -> CliError {
        match error.kind() {
            io::ErrorKind::NotFound => {
                CliError::NotFound(format!("{what}: no such file or directory"))
            }
            _ => CliError::Failed(format!("{what}: {error}")),
        }
    }
}

/// Errors of writing to standard output.
impl From<io::Error> for CliError {
    fn from(error: io::Error) -> CliError {
        match error.kind() {
            io::ErrorKind::BrokenPipe => CliError::ClosedPipe,
            _ => CliError::Failed(format!("cannot write the output: {error}")),
        }
    }
}

/// Whether there is no server to talk to, as against one that talks otherwise.
fn nobody_listens(error: &comlog_client::Error) -> bool {
    use comlog_client::Error::{DeliveryTimeout, Unavailable};
    match error {
        DeliveryTimeout(Some(last)) => nobody_listens(last),
        Unavailable { connected, .. } => !connected,
        _ => false,
    }
}

/// What the client says, by what it means.
impl From<comlog_client::Error> for CliError {
    fn from(error: comlog_client::Error) -> CliError {
        let message = error.to_string();
        match error.kind() {
            ErrorKind::Retry if nobody_listens(&error) => {
                CliError::Unavailable(format!("{message}: {START_HELP}"))
            }
            ErrorKind::Retry => CliError::Unavailable(message),
            ErrorKind::NotFound => CliError::NotFound(message),
            ErrorKind::OutOfRange => CliError::OutOfRange(message),
            ErrorKind::Corrupt => CliError::Corrupt(message),
            ErrorKind::Invalid => CliError::Usage(message),
            _ => CliError::Failed(message),
        }
    }
}
