//! Which events a reader wants.

use super::FilterIdentity;
use crate::{Event, EventType, StreamCategory, StreamId, StreamPrefix};
use std::collections::BTreeSet;
use uuid::Uuid;

/// Which events a reader wants: by type and by stream. One type serves reads, subscriptions and projections.
///
/// ```
/// use eventcore::{EventFilter, StreamId, StreamPrefix};
///
/// let filter = EventFilter::all().stream_prefix(StreamPrefix::new("account-")?).types(["bank.MoneyDeposited".parse()?]);
/// assert!(filter.matches(&StreamId::new("account-1")?, &"bank.MoneyDeposited".parse()?));
/// assert!(!filter.matches(&StreamId::new("accounts-1")?, &"bank.MoneyDeposited".parse()?));
/// # Ok::<(), eventcore::ValidationError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct EventFilter {
    types: Option<BTreeSet<EventType>>,
    default_types: bool,
    streams: StreamSelection,
}

/// Which streams a reader wants.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum StreamSelection {
    /// Every stream.
    #[default]
    All,
    /// Exactly these.
    Exact(BTreeSet<StreamId>),
    /// Those whose name begins so.
    Prefix(StreamPrefix),
}

impl StreamSelection {
    /// Whether a stream is wanted.
    #[must_use]
    pub fn matches(&self, stream_id: &StreamId) -> bool {
        match self {
            Self::All => true,
            Self::Exact(streams) => streams.contains(stream_id),
            Self::Prefix(prefix) => prefix.matches(stream_id),
        }
    }
}

impl EventFilter {
    /// Every event.
    #[must_use]
    pub fn all() -> Self {
        Self::default()
    }

    /// The events that `E` reads, aliases included. This set may grow with the program: a follower's checkpoint stays
    /// valid as long as the log holds no event of the new types before it.
    #[must_use]
    pub fn of<E: Event>() -> Self {
        let types = E::event_types().into_iter().flat_map(|info| info.aliases.into_iter().chain([info.name])).collect();
        Self { types: Some(types), default_types: true, streams: StreamSelection::All }
    }

    /// Only these event types, chosen explicitly: they become part of the filter's identity.
    #[must_use]
    pub fn types(mut self, types: impl IntoIterator<Item = EventType>) -> Self {
        self.types = Some(types.into_iter().collect());
        self.default_types = false;
        self
    }

    /// Only these streams.
    #[must_use]
    pub fn streams(mut self, streams: impl IntoIterator<Item = StreamId>) -> Self {
        self.streams = StreamSelection::Exact(streams.into_iter().collect());
        self
    }

    /// Only streams whose name begins with `prefix`, taken literally.
    #[must_use]
    pub fn stream_prefix(mut self, prefix: StreamPrefix) -> Self {
        self.streams = StreamSelection::Prefix(prefix);
        self
    }

    /// Only the streams of a category: what stands before the first `-` of their name. It is the prefix `category-`, has its
    /// identity, and is found as cheaply; a stream without a `-` is in no category.
    ///
    /// ```
    /// use eventcore::{EventFilter, StreamCategory, StreamPrefix};
    ///
    /// let accounts = EventFilter::all().category(StreamCategory::new("account")?);
    /// assert_eq!(accounts, EventFilter::all().stream_prefix(StreamPrefix::new("account-")?));
    /// # Ok::<(), eventcore::ValidationError>(())
    /// ```
    #[must_use]
    pub fn category(self, category: StreamCategory) -> Self {
        self.stream_prefix(category.into())
    }

    /// Whether an event is wanted.
    #[must_use]
    pub fn matches(&self, stream_id: &StreamId, event_type: &EventType) -> bool {
        self.types.as_ref().is_none_or(|types| types.contains(event_type)) && self.streams.matches(stream_id)
    }

    /// A filter that wants what either of two wants, and maybe more.
    pub(crate) fn union(self, other: Self) -> Self {
        let types = self.types.zip(other.types).map(|(one, other)| one.into_iter().chain(other).collect());
        let streams = if self.streams == other.streams { self.streams } else { StreamSelection::All };
        Self { types, default_types: false, streams }
    }

    /// Whether every event that `other` wants is wanted; it may be so without being noticed.
    pub(crate) fn covers(&self, other: &Self) -> bool {
        let types = match (&self.types, &other.types) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some(own), Some(other)) => other.is_subset(own),
        };
        types && (self.streams == StreamSelection::All || self.streams == other.streams)
    }

    /// The event types wanted; `None` means all.
    #[must_use]
    pub const fn event_types(&self) -> Option<&BTreeSet<EventType>> {
        self.types.as_ref()
    }

    /// The streams wanted.
    #[must_use]
    pub const fn stream_selection(&self) -> &StreamSelection {
        &self.streams
    }

    /// What a checkpoint remembers of the filter.
    #[must_use]
    pub fn identity(&self) -> FilterIdentity {
        let mut text = match &self.streams {
            StreamSelection::All => "all".to_owned(),
            StreamSelection::Exact(streams) => {
                streams.iter().fold("exact".to_owned(), |text, stream| text + "\n" + stream.as_str())
            }
            StreamSelection::Prefix(prefix) => format!("prefix\n{}", prefix.as_str()),
        };
        let mut default_types = BTreeSet::new();
        match &self.types {
            None => text.push_str("\n\nall"),
            Some(types) if self.default_types => {
                text.push_str("\n\ndefault");
                default_types.clone_from(types);
            }
            Some(types) => {
                text.push_str("\n\ntypes");
                types.iter().for_each(|t| {
                    text.push('\n');
                    text.push_str(t.as_str());
                });
            }
        }
        FilterIdentity { selection: Uuid::new_v5(&Uuid::NAMESPACE_OID, text.as_bytes()), default_types }
    }
}
