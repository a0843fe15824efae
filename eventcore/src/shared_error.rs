//! The cause of an error, shared.

use std::error::Error as StdError;
use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

/// The cause of an error, shared because one fault can answer many waiting callers.
///
/// It is no error itself but stands for one: `source()` of the error that holds it is the original cause, which can be
/// downcast.
///
/// ```
/// use eventcore::EventStoreError;
/// use std::error::Error;
///
/// let error = EventStoreError::unavailable(std::io::Error::other("gone")).clone();
/// let cause = error.source().and_then(|cause| cause.downcast_ref::<std::io::Error>());
/// assert_eq!(cause.map(ToString::to_string).as_deref(), Some("gone"));
/// ```
// Without an `Error` impl, since `thiserror` would else make the `Arc` the source, and nothing could be downcast.
#[derive(Clone)]
pub struct SharedError(Arc<dyn StdError + Send + Sync>);

impl SharedError {
    /// Shares `cause`.
    pub fn new(cause: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self(Arc::from(cause.into()))
    }
}

impl Deref for SharedError {
    type Target = dyn StdError + Send + Sync;

    fn deref(&self) -> &Self::Target {
        &*self.0
    }
}

impl fmt::Debug for SharedError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl fmt::Display for SharedError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}
