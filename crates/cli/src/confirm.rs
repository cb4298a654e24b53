//! Asking before something is lost.

use std::io::{self, IsTerminal};

use crate::error::{CliError, Result};

/// Returns when `yes` is set or the person at the terminal says so.
///
/// # Errors
/// Without a terminal to ask at; when the answer is no.
pub(crate) fn ask(question: &str, yes: bool) -> Result<()> {
    if yes {
        return Ok(());
    }
    if !io::stdin().is_terminal() {
        return Err(CliError::Usage(
            "not a terminal, so nobody can be asked: pass --yes".to_owned(),
        ));
    }
    eprint!("{question} [y/N] ");
    let mut answer = String::new();
    io::stdin()
        .read_line(&mut answer)
        .map_err(|error| CliError::file("standard input", &error))?;
    match answer.trim().to_lowercase().as_str() {
        "y" | "yes" => Ok(()),
        _ => Err(CliError::Failed(
            "not confirmed, nothing was done".to_owned(),
        )),
    }
}
