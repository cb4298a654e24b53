//! How commands reach a server.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use comlog_client::{Client, ClientConfig, RetryPolicy};

use crate::error::{CliError, Result};
use crate::units;

/// How often a call is tried: under a second in all, so that a person is told soon.
const ATTEMPTS_MAX: u32 = 5;

/// Where the server is.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Server")]
pub(crate) struct ServerArgs {
    /// The server's address
    #[arg(
        long,
        env = "COMLOG_SERVER",
        value_name = "URL",
        default_value = "http://127.0.0.1:50052",
        global = true
    )]
    pub(crate) server: String,
    /// For https, a PEM file with the authority that signed the server's certificate [default: those that the system trusts]
    #[arg(long, env = "COMLOG_CA_CERT", value_name = "FILE", global = true)]
    pub(crate) ca_cert: Option<PathBuf>,
    /// How long one call may take, attempts and waits between them included
    #[arg(long, value_name = "SPAN", default_value = "30s", value_parser = units::parse_duration, global = true)]
    pub(crate) timeout: Duration,
}

impl ServerArgs {
    /// A client with these options; it connects with its first call. Needs a tokio runtime.
    pub(crate) fn client(&self) -> Result<Client> {
        let retry = RetryPolicy {
            attempts_max: ATTEMPTS_MAX,
            ..RetryPolicy::default()
        };
        let mut config = ClientConfig::new(&self.server)
            .connect_timeout(self.timeout)
            .request_timeout(self.timeout)
            .call_timeout(self.timeout)
            .retry(retry);
        config.validate()?;
        if let Some(path) = &self.ca_cert {
            let pem =
                std::fs::read(path).map_err(|error| CliError::file(path.display(), &error))?;
            config = config.ca_certificate(pem);
            let about =
                |error| CliError::from(error).about(format_args!("--ca-cert {}", path.display()));
            config.validate().map_err(about)?;
        }
        Ok(Client::new(config)?)
    }
}
