//! `comlog completions SHELL`.

use clap::{Args, Command};
use clap_complete::Shell;

use crate::error::Result;
use crate::output::Out;

/// Prints a completion script for a shell
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  comlog completions bash > ~/.local/share/bash-completion/completions/comlog
  comlog completions zsh > ~/.zfunc/_comlog")]
pub(crate) struct CompletionsArgs {
    /// Which shell
    #[arg(value_enum)]
    shell: Shell,
}

/// Runs the command for the command line `command`.
pub(crate) fn run(args: &CompletionsArgs, mut command: Command, out: &mut Out) -> Result<()> {
    // Into memory first: the generator panics when the reader of a pipe has gone.
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut command, "comlog", &mut script);
    std::io::Write::write_all(out, &script)?;
    out.flush()
}
