//! The cases: each takes its figures once, beside the baselines of the same round.

mod archive;
mod calls;
mod consume;
mod library;
mod long;
mod produce;
mod tails;

use std::path::PathBuf;

use futures_util::future::BoxFuture;

use crate::Result;
use crate::baseline::Baselines;
use crate::report::Figure;
use crate::server::Server;

/// How much is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scale {
    Whole,
    /// For a first look.
    Quick,
    /// So little that no figure means anything: only that every case works.
    Smoke,
}

/// What a case needs.
pub(crate) struct Context {
    pub(crate) binary: PathBuf,
    /// An empty directory of its own.
    pub(crate) dir: PathBuf,
    pub(crate) scale: Scale,
    pub(crate) baselines: Baselines,
}

impl Context {
    pub(crate) async fn server(&self) -> Result<Server> {
        Server::start(&self.binary, &self.dir.join("data")).await
    }

    /// `count`, or less when it must be quick.
    pub(crate) fn scaled(&self, count: u64) -> u64 {
        match self.scale {
            Scale::Whole => count,
            Scale::Quick => count / 10,
            Scale::Smoke => (count / 1_000).max(64),
        }
    }

    /// What a quick run does whole, too.
    pub(crate) fn unless_smoke(&self, count: u64) -> u64 {
        match self.scale {
            Scale::Whole | Scale::Quick => count,
            Scale::Smoke => (count / 100).max(1),
        }
    }
}

type Run = for<'a> fn(&'a Context) -> BoxFuture<'a, Result<Vec<Figure>>>;

/// Which runs a case is part of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum When {
    Always,
    /// It takes long.
    Full,
    /// It measures another server.
    Peers,
}

/// One case.
pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) about: &'static str,
    pub(crate) when: When,
    pub(crate) run: Run,
}

const fn case(name: &'static str, about: &'static str, run: Run) -> Case {
    Case {
        name,
        about,
        when: When::Always,
        run,
    }
}

pub(crate) const CASES: &[Case] = &[
    case(
        "produce-100",
        "100 B records in batches of 1,000: 1 connection, 4 on one partition, 4 on 4",
        |context| Box::pin(produce::small(context)),
    ),
    case("produce-1024", "the same with 1 KiB records", |context| {
        Box::pin(produce::large(context))
    }),
    case("latency", "one record, one in flight, durable", |context| {
        Box::pin(calls::latency(context))
    }),
    case(
        "unary-64",
        "64 unary producers, one record each call, durable",
        |context| Box::pin(calls::unary(context)),
    ),
    case(
        "partitions",
        "64 unary producers over 1, 10, 100 and 1,000 partitions",
        |context| Box::pin(calls::partitions(context)),
    ),
    case(
        "consume-100",
        "100 B records from the start, 1 consumer",
        |context| Box::pin(consume::small(context)),
    ),
    case("consume-1024", "the same with 1 KiB records", |context| {
        Box::pin(consume::large(context))
    }),
    case(
        "tails",
        "8 tails of one partition while 50,000 records a second are produced",
        |context| Box::pin(tails::run(context)),
    ),
    case(
        "start",
        "start with 2,000 sealed segments, and with 2",
        |context| Box::pin(long::start(context)),
    ),
    case(
        "archive",
        "1 GiB in 4 archived partitions from the start, beside plain GETs of the same objects",
        |context| Box::pin(archive::run(context)),
    ),
    case("library", "the log without a server", |context| {
        Box::pin(library::run(context))
    }),
    Case {
        name: "memory",
        about: "memory of the server after 10 GiB in and out",
        when: When::Full,
        run: |context| Box::pin(long::memory(context)),
    },
];
