//! One module a command.

pub(crate) mod archive;
pub(crate) mod bench;
pub(crate) mod completions;
pub(crate) mod consume;
pub(crate) mod group;
pub(crate) mod inspect;
pub(crate) mod offsets;
pub(crate) mod produce;
pub(crate) mod restore;
pub(crate) mod serve;
pub(crate) mod topic;
pub(crate) mod verify;
