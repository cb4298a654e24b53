//! Commits positions, one request at a time, so that a later commit is never overtaken.

use std::time::Duration;

use comlog_proto::v1;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::{Client, Error, Result};

/// See the module's description.
#[derive(Debug)]
pub(crate) struct Committer {
    client: Client,
    group: Option<String>,
    interval: Option<Duration>,
    due: Instant,
    /// The commit under way; each waits for the one before.
    last: Option<JoinHandle<()>>,
}

impl Committer {
    pub(crate) fn new(
        client: Client,
        group: Option<String>,
        interval: Option<Duration>,
    ) -> Committer {
        let mut committer = Committer {
            client,
            group,
            interval,
            due: Instant::now(),
            last: None,
        };
        committer.put_off();
        committer
    }

    fn put_off(&mut self) {
        self.due = Instant::now() + self.interval.unwrap_or_default();
    }

    /// Whether it is time to commit by itself.
    pub(crate) fn is_due(&self) -> bool {
        let busy = self.last.as_ref().is_some_and(|last| !last.is_finished());
        self.interval.is_some() && !busy && Instant::now() >= self.due
    }

    pub(crate) fn commit_in_background(&mut self, offsets: Vec<v1::CommittedOffset>) {
        self.put_off();
        let log = |result: Result<()>| {
            if let Err(error) = result {
                tracing::warn!(%error, "automatic commit failed, the next will include it");
            }
        };
        // There is a group, or nothing would be due.
        drop(self.commit_async(offsets, log));
    }

    /// Commits behind the commits before and calls back.
    pub(crate) fn commit_async(
        &mut self,
        offsets: Vec<v1::CommittedOffset>,
        callback: impl FnOnce(Result<()>) + Send + 'static,
    ) -> Result<()> {
        let group = self.group()?;
        let (client, before) = (self.client.clone(), self.last.take());
        self.last = Some(tokio::spawn(async move {
            if let Some(before) = before {
                drop(before.await);
            }
            callback(commit(&client, &group, offsets).await);
        }));
        Ok(())
    }

    /// Commits behind the commits before and waits for it.
    pub(crate) async fn commit(&mut self, offsets: Vec<v1::CommittedOffset>) -> Result<()> {
        let group = self.group()?;
        if let Some(before) = &mut self.last {
            drop(before.await);
            self.last = None;
        }
        commit(&self.client, &group, offsets).await
    }

    /// Waits for commits under way, and commits if that was to happen by itself.
    pub(crate) async fn close(&mut self, offsets: Vec<v1::CommittedOffset>) -> Result<()> {
        if let Some(before) = self.last.take() {
            drop(before.await);
        }
        if self.interval.is_some() {
            self.commit(offsets).await?;
        }
        Ok(())
    }

    fn group(&self) -> Result<String> {
        let missing = Error::InvalidState("commits need a group");
        self.group.clone().ok_or(missing)
    }
}

async fn commit(client: &Client, group: &str, offsets: Vec<v1::CommittedOffset>) -> Result<()> {
    if offsets.is_empty() {
        return Ok(());
    }
    client.commit_offsets(group, offsets).await
}
