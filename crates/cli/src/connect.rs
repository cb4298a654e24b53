//! How commands reach a server, and what its refusals mean at a terminal.

use std::future::Future;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use comlog_client::{Client, ClientConfig};
use comlog_proto::v1::group_service_client::GroupServiceClient;
use comlog_proto::v1::log_service_client::LogServiceClient;
use comlog_proto::v1::topic_service_client::TopicServiceClient;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};
use tonic::{Code, Response, Status};

use crate::error::{CliError, Result, START_HELP};
use crate::units;

/// Larger than any batch, so that the server's bound decides.
const MESSAGE_BYTES_MAX: usize = 128 << 20;

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
    /// A PEM file with the authority that signed the server's certificate, for https
    #[arg(long, env = "COMLOG_CA_CERT", value_name = "FILE", global = true)]
    pub(crate) ca_cert: Option<PathBuf>,
    /// How long one call may take
    #[arg(long, value_name = "SPAN", default_value = "30s", value_parser = units::parse_duration, global = true)]
    pub(crate) timeout: Duration,
}

impl ServerArgs {
    /// A client with these options; must be called in a tokio runtime.
    pub(crate) fn client(&self) -> Result<Client> {
        let mut config = ClientConfig::new(&self.server)
            .connect_timeout(self.timeout)
            .request_timeout(self.timeout);
        if let Some(path) = &self.ca_cert {
            let pem =
                std::fs::read(path).map_err(|error| CliError::file(path.display(), &error))?;
            config = config.ca_certificate(pem);
        }
        Ok(Client::new(config)?)
    }
}

/// A way to one server; it connects with the first call.
#[derive(Debug, Clone)]
pub(crate) struct Connection {
    server: String,
    channel: Channel,
}

impl Connection {
    /// Prepares a connection; must be called in a tokio runtime.
    pub(crate) fn new(args: &ServerArgs) -> Result<Connection> {
        let endpoint = Endpoint::from_shared(args.server.clone())
            .map_err(|error| CliError::Usage(format!("--server {}: {error}", args.server)))?
            .connect_timeout(args.timeout)
            .timeout(args.timeout);
        let channel = with_tls(endpoint, args)?.connect_lazy();
        Ok(Connection {
            server: args.server.clone(),
            channel,
        })
    }

    /// The topic service.
    pub(crate) fn topics(&self) -> TopicServiceClient<Channel> {
        TopicServiceClient::new(self.channel.clone())
    }

    /// The log service.
    pub(crate) fn log(&self) -> LogServiceClient<Channel> {
        LogServiceClient::new(self.channel.clone()).max_decoding_message_size(MESSAGE_BYTES_MAX)
    }

    /// The group service.
    pub(crate) fn groups(&self) -> GroupServiceClient<Channel> {
        GroupServiceClient::new(self.channel.clone())
    }

    /// Waits for a call and turns its failure into an error that says what to do.
    pub(crate) async fn call<T>(
        &self,
        call: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Result<T> {
        call.await
            .map(Response::into_inner)
            .map_err(|status| self.explain(&status))
    }

    /// What a status means to the person who sees it.
    pub(crate) fn explain(&self, status: &Status) -> CliError {
        from_code(status.code(), status.message().to_owned(), &self.server)
    }
}

/// The one map from gRPC codes to errors.
pub(crate) fn from_code(code: Code, message: String, server: &str) -> CliError {
    match code {
        Code::InvalidArgument => CliError::Usage(message),
        Code::NotFound => CliError::NotFound(message),
        Code::OutOfRange => CliError::OutOfRange(message),
        Code::DataLoss => CliError::Corrupt(message),
        Code::Unavailable => CliError::Unavailable(unreachable_server(&message, server)),
        Code::DeadlineExceeded | Code::Cancelled => CliError::Unavailable(format!(
            "{server} did not answer in time: {message}; see --timeout"
        )),
        Code::ResourceExhausted => {
            CliError::Unavailable(format!("{server} refuses more work: {message}"))
        }
        Code::Unimplemented => CliError::Failed(format!(
            "{server} does not know this call: is it a comlog server of this version?"
        )),
        _ => CliError::Failed(message),
    }
}

fn unreachable_server(message: &str, server: &str) -> String {
    format!("cannot reach {server}: {message}: {START_HELP}")
}

fn with_tls(endpoint: Endpoint, args: &ServerArgs) -> Result<Endpoint> {
    if !args.server.starts_with("https://") {
        return Ok(endpoint);
    }
    let Some(path) = &args.ca_cert else {
        return Err(CliError::Usage(
            "https needs --ca-cert FILE, the certificate (or its authority's) of the server"
                .to_owned(),
        ));
    };
    let pem = std::fs::read(path).map_err(|error| CliError::file(path.display(), &error))?;
    let tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(pem));
    endpoint
        .tls_config(tls)
        .map_err(|error| CliError::Failed(format!("{}: {error}", path.display())))
}
