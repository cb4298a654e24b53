//! A peer's server: started with fresh data, ended by its process id.

use std::process::Stdio;
use std::time::Duration;

use tokio::process::{Child, Command};

use crate::Result;
use crate::measure::Usage;

/// How often, and how long apart, one looks whether a server is ready.
pub(super) const LOOKS: usize = 1_000;
pub(super) const LOOK_INTERVAL: Duration = Duration::from_millis(10);

/// A running server; killed when dropped.
pub(super) struct Process {
    child: Child,
}

impl Process {
    pub(super) fn start(command: &mut Command) -> Result<Process> {
        let program = command.as_std().get_program().display().to_string();
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| missing(&program, &error))?;
        Ok(Process { child })
    }

    pub(super) fn pid(&self) -> u32 {
        self.child.id().unwrap_or_default()
    }

    pub(super) fn usage(&self) -> Usage {
        Usage::of(self.pid())
    }

    /// Whether it has ended by itself.
    pub(super) fn has_ended(&mut self) -> Result<bool> {
        Ok(self.child.try_wait()?.is_some())
    }

    /// SIGTERM, and its end.
    pub(super) async fn stop(mut self) -> Result<()> {
        crate::server::terminate(&mut self.child).await
    }
}

/// What `program --version` says.
pub(super) fn version(program: &str) -> Result<String> {
    let output = std::process::Command::new(program)
        .arg("--version")
        .output()
        .map_err(|error| missing(program, &error))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned()
        + &String::from_utf8_lossy(&output.stderr);
    let words = text.split_whitespace();
    let version = words
        .filter_map(|word| word.strip_prefix("v=").or(word.strip_prefix('v')))
        .find(|word| word.starts_with(|first: char| first.is_ascii_digit()));
    let version = version.ok_or_else(|| format!("{program} does not tell its version"))?;
    Ok(format!("{program} {version}"))
}

fn missing(program: &str, error: &std::io::Error) -> String {
    format!(
        "cannot start {program}: {error} (`cargo xtask bench` installs it; --no-peers leaves it out)"
    )
}
