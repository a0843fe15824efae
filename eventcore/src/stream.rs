//! Streams, their versions, and positions in the one global order.

use crate::validation::{check_range, name_type};
use crate::{Problem, ValidationError};
use nutype::nutype;
use thiserror::Error;

name_type! {
    /// The name of a stream: all events of one thing, in order.
    ///
    /// ```
    /// use eventcore::StreamId;
    ///
    /// let stream = StreamId::new("account-1")?;
    /// assert_eq!(stream.as_str(), "account-1");
    /// assert!(StreamId::new("").is_err());
    /// # Ok::<(), eventcore::ValidationError>(())
    /// ```
    StreamId, check_stream_id
}

impl StreamId {
    /// The category of the stream: what stands before its first `-`. A stream without a `-`, or with nothing before it, is
    /// in no category.
    ///
    /// ```
    /// use eventcore::StreamId;
    ///
    /// assert_eq!(StreamId::new("account-1-2")?.category(), Some("account"));
    /// assert_eq!(StreamId::new("accounts")?.category(), None);
    /// # Ok::<(), eventcore::ValidationError>(())
    /// ```
    #[must_use]
    pub fn category(&self) -> Option<&str> {
        let (category, _) = self.as_str().split_once('-')?;
        Some(category).filter(|category| !category.is_empty())
    }
}

/// A domain type that names a stream, so that it can stand at a `#[stream]` field of a command.
///
/// ```
/// use eventcore::{StreamId, StreamName, ValidationError};
///
/// struct AccountId(u32);
///
/// impl StreamName for AccountId {
///     fn stream_id(&self) -> Result<StreamId, ValidationError> {
///         StreamId::new(format!("account-{}", self.0))
///     }
/// }
/// assert_eq!(AccountId(7).stream_id()?.as_str(), "account-7");
/// # Ok::<(), ValidationError>(())
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` names no stream",
    label = "not the name of a stream",
    note = "a `#[stream]` field is a `StreamId`, a type of yours that implements `StreamName`, or a `Vec` or `Option` of \
            one, spelled out rather than behind an alias"
)]
pub trait StreamName {
    /// The name of the stream. The same value always gives the same name.
    ///
    /// # Errors
    /// [`ValidationError`] if the value makes no valid stream name.
    fn stream_id(&self) -> Result<StreamId, ValidationError>;
}

impl StreamName for StreamId {
    fn stream_id(&self) -> Result<StreamId, ValidationError> {
        Ok(self.clone())
    }
}

impl<T: StreamName + ?Sized> StreamName for &T {
    fn stream_id(&self) -> Result<StreamId, ValidationError> {
        (**self).stream_id()
    }
}

/// The highest version and position: what a signed 64-bit column of a database can hold.
const MAX_NUMBER: u64 = i64::MAX as u64;

fn check_version(value: &u64) -> Result<(), ValidationError> {
    check_range("StreamVersion", *value, 0, MAX_NUMBER)
}

/// The number of events in a stream, which is also the version of its last event.
///
/// The first event of a stream has version 1; a stream without events has version 0.
///
/// ```
/// use eventcore::StreamVersion;
///
/// assert_eq!(StreamVersion::default(), StreamVersion::try_new(0)?);
/// assert_eq!(StreamVersion::default().next()?.get(), 1);
/// # Ok::<(), eventcore::ValidationError>(())
/// ```
#[nutype(
    validate(with = check_version, error = ValidationError),
    default = 0,
    derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Display, Default, Serialize, Deserialize)
)]
pub struct StreamVersion(u64);

impl StreamVersion {
    /// The version as a number of events.
    #[must_use]
    pub fn get(self) -> u64 {
        self.into_inner()
    }

    /// The version of the event that follows.
    ///
    /// # Errors
    /// [`ValidationError`] past 2^63 - 1.
    pub fn next(self) -> Result<Self, ValidationError> {
        self.plus(1)
    }

    /// The version after `count` more events.
    ///
    /// # Errors
    /// [`ValidationError`] past 2^63 - 1.
    pub fn plus(self, count: u64) -> Result<Self, ValidationError> {
        Self::try_new(self.get().saturating_add(count))
    }
}

fn check_position(value: &u64) -> Result<(), ValidationError> {
    check_range("GlobalPosition", *value, 1, MAX_NUMBER)
}

/// The place of an event in the one order of all events of a store. Assigned by the store, starts at 1.
///
/// Position order contains the order within every stream. Memory and SQLite number without gaps; Postgres may leave some.
#[nutype(
    validate(with = check_position, error = ValidationError),
    derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Display, Serialize, Deserialize)
)]
pub struct GlobalPosition(u64);

impl GlobalPosition {
    /// The position as a number.
    #[must_use]
    pub fn get(self) -> u64 {
        self.into_inner()
    }
}

/// What an append expects of a stream, judged under the store's lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum ExpectedVersion {
    /// Nothing: the events are appended after whatever is there.
    #[default]
    Any,
    /// The stream has no events.
    NoStream,
    /// The stream has at least one event.
    StreamExists,
    /// The stream has exactly this version. `Exact(0)` means the same as `NoStream`.
    Exact(StreamVersion),
}

impl ExpectedVersion {
    /// Whether a stream at version `actual` is what was expected.
    ///
    /// ```
    /// use eventcore::{ExpectedVersion, StreamVersion};
    ///
    /// let empty = StreamVersion::default();
    /// assert!(ExpectedVersion::NoStream.is_met_by(empty));
    /// assert!(ExpectedVersion::Exact(empty).is_met_by(empty));
    /// assert!(!ExpectedVersion::StreamExists.is_met_by(empty));
    /// ```
    #[must_use]
    pub fn is_met_by(self, actual: StreamVersion) -> bool {
        match self {
            Self::Any => true,
            Self::NoStream => actual.get() == 0,
            Self::StreamExists => actual.get() > 0,
            Self::Exact(version) => actual == version,
        }
    }

    /// The same expectation in one spelling: `Exact(0)` becomes `NoStream`.
    #[must_use]
    pub fn normalized(self) -> Self {
        match self {
            Self::Exact(version) if version.get() == 0 => Self::NoStream,
            other => other,
        }
    }

    /// Judges a stream.
    ///
    /// # Errors
    /// [`VersionConflict`] with the stream, what was expected and what is there.
    pub fn judge(self, stream_id: &StreamId, actual: StreamVersion) -> Result<(), VersionConflict> {
        if self.is_met_by(actual) {
            return Ok(());
        }
        Err(VersionConflict { stream_id: stream_id.clone(), expected: self, actual })
    }
}

impl std::fmt::Display for ExpectedVersion {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Any => f.write_str("any version"),
            Self::NoStream => f.write_str("no events"),
            Self::StreamExists => f.write_str("at least one event"),
            Self::Exact(version) => write!(f, "version {version}"),
        }
    }
}

/// A stream was not at the version an append expected: somebody else wrote in between. Nothing was appended.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("stream {stream_id}: expected {expected}, it is at version {actual}")]
pub struct VersionConflict {
    /// The stream.
    pub stream_id: StreamId,
    /// What was expected of it.
    pub expected: ExpectedVersion,
    /// Its version under the lock.
    pub actual: StreamVersion,
}

/// The beginning of all names of a group of streams, compared literally: `_` and `%` stand for themselves.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StreamPrefix(StreamId);

impl StreamPrefix {
    /// A prefix, for example `account-`. It follows the rules of a stream name.
    ///
    /// # Errors
    /// [`ValidationError`] if the text could not begin a stream name. An empty prefix is refused: that is no filter.
    pub fn new(text: impl AsRef<str>) -> Result<Self, ValidationError> {
        let text = text.as_ref();
        StreamId::new(text).map(Self).map_err(|error| ValidationError::new("StreamPrefix", error.problem().clone()))
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }

    /// Whether the name of `stream_id` begins with this prefix.
    #[must_use]
    pub fn matches(&self, stream_id: &StreamId) -> bool {
        stream_id.as_str().starts_with(self.as_str())
    }
}

/// A category of streams: all whose name begins with its name and a `-`, compared literally. See [`StreamId::category`].
///
/// ```
/// use eventcore::{StreamCategory, StreamId};
///
/// let accounts = StreamCategory::new("account")?;
/// assert!(accounts.matches(&StreamId::new("account-1")?));
/// assert!(!accounts.matches(&StreamId::new("accounts-1")?));
/// assert!(!accounts.matches(&StreamId::new("account")?), "a stream without a `-` is in no category");
/// assert!(StreamCategory::new("account-1").is_err());
/// # Ok::<(), eventcore::ValidationError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StreamCategory(StreamPrefix);

impl StreamCategory {
    /// A category, for example `account`.
    ///
    /// # Errors
    /// [`ValidationError`] if the name is empty, holds a `-`, or could not begin a stream name.
    pub fn new(name: impl AsRef<str>) -> Result<Self, ValidationError> {
        let name = name.as_ref();
        let refused = |problem| ValidationError::new("StreamCategory", problem);
        if name.is_empty() {
            return Err(refused(Problem::Empty));
        }
        if name.contains('-') {
            return Err(refused(Problem::Malformed { text: name.to_owned(), expected: "a name without `-`" }));
        }
        let prefix = StreamPrefix::new(format!("{name}-")).map_err(|error| refused(error.problem().clone()))?;
        Ok(Self(prefix))
    }

    /// The name, without the `-`.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.0.as_str().trim_end_matches('-')
    }

    /// Whether a stream is in this category.
    #[must_use]
    pub fn matches(&self, stream_id: &StreamId) -> bool {
        self.0.matches(stream_id)
    }
}

/// The streams of a category are those whose name begins with its name and a `-`.
impl From<StreamCategory> for StreamPrefix {
    fn from(category: StreamCategory) -> Self {
        category.0
    }
}
