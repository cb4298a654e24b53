//! The second place of what cannot be found again in the segments: log start and fencing token.

use bytes::Bytes;
use comlog_record::Offset;
use comlog_storage::{Storage, StorageError};

use crate::frame::{Decoder, Encoder, Kind, Owner, Unusable};

/// The blob it is kept in.
pub(crate) const FENCE_NAME: &str = "fence";

/// What it begins with.
pub(crate) const MAGIC: &[u8; 8] = b"comlogFT";

const FENCE: Kind = Kind {
    magic: *MAGIC,
    format: 1,
};

/// What the blob says. Written before the checkpoint that says the same, when either changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Fence {
    /// How often it was written; the checkpoint keeps the number too. 0: never.
    pub(crate) generation: u64,
    pub(crate) start: Offset,
    pub(crate) token: u64,
}

impl Fence {
    /// Of a log that was never trimmed nor fenced: not written.
    pub(crate) const NONE: Fence = Fence {
        generation: 0,
        start: Offset::ZERO,
        token: 0,
    };

    pub(crate) fn encode(&self, owner: Owner) -> Bytes {
        let mut out = Encoder::new(FENCE, owner, self.generation);
        out.i64(self.start.0);
        out.u64(self.token);
        out.finish()
    }

    pub(crate) fn decode(owner: Owner, content: &[u8]) -> Result<Fence, Unusable> {
        match Fence::decode_any(content)? {
            (of, fence) if of == owner => Ok(fence),
            (of, _) => Err(Unusable::Owner(of)),
        }
    }

    /// Whosever it is.
    pub(crate) fn decode_any(content: &[u8]) -> Result<(Owner, Fence), Unusable> {
        let mut from = Decoder::open_any(FENCE, content)?;
        let fence = Fence {
            generation: from.generation(),
            start: Offset(from.i64()?),
            token: from.u64()?,
        };
        let from_owner = from.owner();
        from.finish()?;
        if fence.start < Offset::ZERO {
            return Err(Unusable::Invalid("the log start is negative"));
        }
        Ok((from_owner, fence))
    }

    /// The blob, or why it is of no use.
    pub(crate) async fn load(
        storage: &dyn Storage,
        owner: Owner,
    ) -> Result<Result<Fence, Unusable>, StorageError> {
        let content = storage.read_blob(FENCE_NAME).await?;
        Ok(content.map_or(Err(Unusable::Missing), |content| {
            Fence::decode(owner, &content)
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_comes_back_and_is_bound_to_its_log() {
        let owner = Owner::partition(9, 2);
        let fence = Fence {
            generation: 3,
            start: Offset(90),
            token: 2,
        };
        let content = fence.encode(owner);
        assert_eq!(Fence::decode(owner, &content), Ok(fence));
        assert!(Fence::decode(Owner::partition(9, 3), &content).is_err());
        assert!(Fence::decode(owner, &content[1..]).is_err());
    }
}
