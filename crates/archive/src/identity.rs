//! Which archive this is, and whether its store keeps the promise that one writer rests on.

use bytes::Bytes;
use object_store::PutMode;
use object_store::path::Path;
use serde::{Deserialize, Serialize};

use crate::frame::{self, Kind};
use crate::store::{ArchiveStore, Put};
use crate::{ArchiveError, Result};

const ARCHIVE: Kind = Kind {
    name: "archive",
    format: 1,
};
const IDENTITY_KEY: &str = "comlog-archive";
const PROBE_DIR: &str = "probe";

/// What the object at the root of an archive says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// 32 hex digits, random: no other archive has them.
    pub id: String,
}

/// How manifests are replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Writes {
    /// Only if nobody else did meanwhile; the store makes sure.
    Conditional,
    /// Looking first and then writing: the operator promises that there is one writer.
    SingleWriter,
}

impl Identity {
    /// What archive `store` holds; `None` when it is empty.
    ///
    /// # Errors
    /// [`ArchiveError`].
    pub async fn load(store: &ArchiveStore) -> Result<Option<Identity>> {
        let key = Path::from(IDENTITY_KEY);
        let found = store.get(&key).await?;
        found
            .map(|(content, _)| frame::decode(ARCHIVE, IDENTITY_KEY, &content))
            .transpose()
    }

    /// As [`Identity::load`]; makes it an archive if it is not.
    ///
    /// # Errors
    /// [`ArchiveError`].
    pub async fn load_or_create(store: &ArchiveStore, writes: Writes) -> Result<Identity> {
        if let Some(found) = Identity::load(store).await? {
            return Ok(found);
        }
        let made = Identity { id: random_id() };
        let mode = match writes {
            Writes::Conditional => PutMode::Create,
            Writes::SingleWriter => PutMode::Overwrite,
        };
        let content = frame::encode(ARCHIVE, &made)?;
        store
            .put(&Path::from(IDENTITY_KEY), vec![content], mode)
            .await?;
        let found = Identity::load(store).await?;
        found.ok_or_else(|| ArchiveError::unavailable("make the archive", "written, yet not there"))
    }
}

impl Writes {
    /// Tries whether the store refuses what it must: to create what exists, and to replace a version
    /// that is no longer there. Real stores differ, and some answer "done" to everybody.
    ///
    /// # Errors
    /// [`ArchiveError::Config`] when it does not refuse, saying what it did instead;
    /// [`ArchiveError::Unavailable`] when it cannot be asked, or refused what it must do: that is how a
    /// request looks whose answer was lost and which the client repeated. Each call uses a fresh key.
    pub async fn probe(store: &ArchiveStore) -> Result<Writes> {
        if !store.may_be_conditional() {
            return Err(ignored("has no conditional writes"));
        }
        let key = Path::from_iter([PROBE_DIR, &random_id()]);
        let answer = probe_with(store, &key).await;
        if let Err(error) = store.delete(&key).await {
            tracing::warn!(%error, %key, "probe not removed");
        }
        answer
    }
}

async fn probe_with(store: &ArchiveStore, key: &Path) -> Result<Writes> {
    let content = |text: &'static str| vec![Bytes::from_static(text.as_bytes())];
    let first = match store.put(key, content("1"), PutMode::Create).await? {
        Put::Done(version) => version,
        Put::Refused => return Err(puzzling(key, "refused to create what does not exist")),
        Put::Unsupported => return Err(ignored("has no conditional writes")),
    };
    if store.put(key, content("2"), PutMode::Create).await? != Put::Refused {
        return Err(ignored(
            "ignores If-None-Match: it created an object that existed",
        ));
    }
    let second = store
        .put(key, content("3"), PutMode::Update(first.clone()))
        .await?;
    match second {
        Put::Done(_) => {}
        Put::Refused => return Err(puzzling(key, "refused to replace the newest version")),
        Put::Unsupported => return Err(ignored("cannot replace an object under a condition")),
    }
    if store.put(key, content("4"), PutMode::Update(first)).await? != Put::Refused {
        return Err(ignored(
            "ignores If-Match: it replaced a version that was gone",
        ));
    }
    Ok(Writes::Conditional)
}

/// Not a finding: asked again, with another key, the store may do it.
fn puzzling(key: &Path, what: &str) -> ArchiveError {
    ArchiveError::unavailable(format!("probe {key}"), format!("the store {what}"))
}

fn ignored(what: &str) -> ArchiveError {
    ArchiveError::Config(format!(
        "the store {what}, so two servers could overwrite each other's manifests; \
         if this server is the only writer, say so with --archive-single-writer"
    ))
}

/// 128 random bits in hex.
pub(crate) fn random_id() -> String {
    format!("{:032x}", rand::random::<u128>())
}
