//! One module a command.

pub(crate) mod completions;
pub(crate) mod inspect;
