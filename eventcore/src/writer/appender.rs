//! What an adapter brings to the writer.

use crate::{AppendRequest, Appended, EventStoreError};
use std::future::Future;
use thiserror::Error;

/// The answer to one request of a group.
pub type Verdict = Result<Appended, EventStoreError>;

/// The adapter's side of the writer: appends a group of requests in one commit.
///
/// An implementer guarantees:
/// - one verdict per request, in order, each answered only after its events are durable;
/// - requests are judged in order, so a later one sees what an earlier one of the same group appended;
/// - a request's own failure (conflict, oversize, ..) is its verdict and does not touch its neighbours.
pub trait GroupAppender: Send + 'static {
    /// Appends a group. It is never empty and within [`limits`](Self::limits).
    ///
    /// # Errors
    /// [`GroupFailure`] if the group failed as a whole.
    fn append_group(
        &mut self,
        group: &[AppendRequest],
    ) -> impl Future<Output = Result<Vec<Verdict>, GroupFailure>> + Send;

    /// How large a group may be.
    fn limits(&self) -> GroupLimits {
        GroupLimits::default()
    }
}

/// How large a group may be. One request alone may be over the limit of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GroupLimits {
    /// The most requests in one group. Default 512.
    pub requests: usize,
    /// The most bytes of events in one group. Default 8 MiB.
    pub bytes: usize,
}

impl Default for GroupLimits {
    fn default() -> Self {
        Self { requests: 512, bytes: 8 * 1024 * 1024 }
    }
}

/// A whole group failed.
#[derive(Debug, Clone, Error)]
#[non_exhaustive]
pub enum GroupFailure {
    /// Nothing of it was written, and the storage is as it was: every caller gets this error, and the writer goes on.
    #[error("nothing of the group was written")]
    Nothing(#[source] EventStoreError),
    /// What is stored is unknown: every caller gets [`EventStoreError::OutcomeUnknown`], and the writer is poisoned.
    #[error("the state of the storage is unknown")]
    Unknown(#[source] EventStoreError),
}
