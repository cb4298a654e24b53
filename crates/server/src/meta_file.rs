//! Small files of the data directory that cannot be made anew from anything else: each is kept
//! twice, in the frame of `comlog_log::frame`.
//!
//! A write is durable on return in both places. Its generation rises with each write, so that a
//! place that was lost, damaged or put back as an older copy is told from the other and written anew.

use std::sync::Arc;

use bytes::Bytes;
use comlog_log::frame::{Decoder, Encoder, Kind, Owner, Unusable};
use comlog_storage::{Storage, StorageError};

/// One place of a file.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    pub(crate) storage: Arc<dyn Storage>,
    pub(crate) blob: String,
    /// As people know it, below the data directory.
    pub(crate) path: String,
}

/// A file, in one or two places.
#[derive(Debug, Clone)]
pub(crate) struct MetaFile {
    pub(crate) kind: Kind,
    pub(crate) owner: Owner,
    pub(crate) places: Vec<Place>,
}

/// What a file says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Content {
    pub(crate) generation: u64,
    pub(crate) payload: Bytes,
    /// What is wrong with the other place; nothing is lost by it.
    pub(crate) flaws: Vec<String>,
}

/// What was found in the places of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Found {
    /// It is in no place.
    Nothing,
    /// The newest that is whole.
    Content(Content),
    /// It is there, and no place can be used.
    Damaged {
        /// Where, and what is wrong.
        reason: String,
        /// What lies in the first place that has anything.
        raw: Bytes,
    },
}

impl MetaFile {
    /// Reads every place.
    pub(crate) async fn read(&self) -> Found {
        let mut best: Option<(u64, Bytes)> = None;
        let mut usable = Vec::new();
        let mut flaws = Vec::new();
        let mut raw = None;
        let mut unknown = false;
        for place in &self.places {
            let content = match place.storage.read_blob(&place.blob).await {
                Ok(content) => content,
                Err(error) => {
                    flaws.push(format!("{}: {error}", place.path));
                    raw.get_or_insert(Bytes::new());
                    continue;
                }
            };
            let Some(content) = content else {
                flaws.push(format!("{}: missing", place.path));
                continue;
            };
            match decode(self.kind, self.owner, &content) {
                Ok((generation, payload)) => {
                    usable.push((generation, &place.path));
                    if best.as_ref().is_none_or(|(newest, _)| generation > *newest) {
                        best = Some((generation, payload));
                    }
                }
                Err(error) => {
                    unknown |= matches!(error, Unusable::Format(_));
                    flaws.push(format!("{}: {error}", place.path));
                }
            }
            raw.get_or_insert(content);
        }
        match (best, raw) {
            (Some((generation, payload)), _) if !unknown => {
                let older = usable.iter().filter(|(other, _)| *other < generation);
                flaws.extend(older.map(|(_, path)| format!("{path}: an older copy")));
                Found::Content(Content {
                    generation,
                    payload,
                    flaws,
                })
            }
            (_, None) => Found::Nothing,
            (_, Some(raw)) => Found::Damaged {
                reason: flaws.join("; "),
                raw,
            },
        }
    }

    /// Durable in every place on return.
    ///
    /// # Errors
    /// Those of writing; then either content may be found later, never a mixture.
    pub(crate) async fn write(&self, generation: u64, payload: &[u8]) -> Result<(), StorageError> {
        let content = encode(self.kind, self.owner, generation, payload);
        for place in &self.places {
            place
                .storage
                .write_blob(&place.blob, content.clone())
                .await?;
        }
        Ok(())
    }

    /// Puts a place right that has a flaw, and says so.
    pub(crate) async fn mend(&self, content: &mut Content) {
        if content.flaws.is_empty() {
            return;
        }
        let flaws = content.flaws.join("; ");
        let generation = content.generation.saturating_add(1);
        match self.write(generation, &content.payload).await {
            Ok(()) => {
                content.generation = generation;
                tracing::warn!(
                    flaws,
                    "one copy of a file was unusable, written anew from the other"
                );
            }
            Err(error) => {
                tracing::warn!(flaws, %error, "one copy of a file is unusable and cannot be written");
            }
        }
    }
}

/// The whole file.
pub(crate) fn encode(kind: Kind, owner: Owner, generation: u64, payload: &[u8]) -> Bytes {
    let mut out = Encoder::new(kind, owner, generation);
    out.bytes(payload);
    out.finish()
}

/// Its generation and payload.
pub(crate) fn decode(kind: Kind, owner: Owner, content: &[u8]) -> Result<(u64, Bytes), Unusable> {
    let mut from = Decoder::open(kind, owner, content)?;
    let generation = from.generation();
    let payload = Bytes::copy_from_slice(from.bytes()?);
    from.finish()?;
    Ok((generation, payload))
}
