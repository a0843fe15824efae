//! What is known about an event beside its payload.

use crate::{CausationId, CorrelationId, Problem, UserId, ValidationError};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;

/// The largest metadata, as JSON, in bytes.
pub(crate) const MAX_METADATA_BYTES: usize = 64 * 1024;

/// Correlation, causation, user and free key-values of an event.
///
/// All events of one command share one copy; a clone is cheap. Empty metadata takes no space.
///
/// ```
/// use eventcore::{CorrelationId, EventMetadata, UserId};
///
/// let metadata = EventMetadata::builder()
///     .correlation_id(CorrelationId::new("order-17")?)
///     .user_id(UserId::new("alice")?)
///     .value("ip", "127.0.0.1")
///     .build()?;
/// assert_eq!(metadata.value("ip"), Some("127.0.0.1"));
/// assert_eq!(serde_json::from_str::<EventMetadata>(metadata.as_json())?, metadata);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(try_from = "EventMetadataBuilder", into = "EventMetadataBuilder")]
pub struct EventMetadata(Option<Arc<Shared>>);

#[derive(Debug, PartialEq, Eq)]
struct Shared {
    fields: EventMetadataBuilder,
    json: String,
}

impl EventMetadata {
    /// Metadata without anything in it.
    #[must_use]
    pub const fn empty() -> Self {
        Self(None)
    }

    /// Begins new metadata.
    #[must_use]
    pub fn builder() -> EventMetadataBuilder {
        EventMetadataBuilder::default()
    }

    /// Whether there is nothing in it.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// What the event belongs to.
    #[must_use]
    pub fn correlation_id(&self) -> Option<&CorrelationId> {
        self.0.as_ref()?.fields.correlation_id.as_ref()
    }

    /// What caused the event.
    #[must_use]
    pub fn causation_id(&self) -> Option<&CausationId> {
        self.0.as_ref()?.fields.causation_id.as_ref()
    }

    /// On whose behalf it was written.
    #[must_use]
    pub fn user_id(&self) -> Option<&UserId> {
        self.0.as_ref()?.fields.user_id.as_ref()
    }

    /// The free value stored under `key`.
    #[must_use]
    pub fn value(&self, key: &str) -> Option<&str> {
        self.0.as_ref()?.fields.values.get(key).map(String::as_str)
    }

    /// All free key-values, in order of their keys.
    pub fn values(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().flat_map(|shared| shared.fields.values.iter()).map(|(k, v)| (k.as_str(), v.as_str()))
    }

    /// The metadata as JSON text, made once; `{}` if it is empty.
    #[must_use]
    pub fn as_json(&self) -> &str {
        self.0.as_ref().map_or("{}", |shared| &shared.json)
    }

    /// A builder that begins with what is in here.
    #[must_use]
    pub fn to_builder(&self) -> EventMetadataBuilder {
        self.0.as_ref().map(|shared| shared.fields.clone()).unwrap_or_default()
    }
}

impl TryFrom<EventMetadataBuilder> for EventMetadata {
    type Error = ValidationError;

    fn try_from(builder: EventMetadataBuilder) -> Result<Self, Self::Error> {
        builder.build()
    }
}

impl From<EventMetadata> for EventMetadataBuilder {
    fn from(metadata: EventMetadata) -> Self {
        metadata.to_builder()
    }
}

/// Builds [`EventMetadata`].
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EventMetadataBuilder {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    correlation_id: Option<CorrelationId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    causation_id: Option<CausationId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    user_id: Option<UserId>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    values: BTreeMap<String, String>,
}

impl EventMetadataBuilder {
    /// Sets what the event belongs to.
    #[must_use]
    pub fn correlation_id(mut self, id: CorrelationId) -> Self {
        self.correlation_id = Some(id);
        self
    }

    /// Sets what caused the event.
    #[must_use]
    pub fn causation_id(mut self, id: CausationId) -> Self {
        self.causation_id = Some(id);
        self
    }

    /// Sets on whose behalf it is written.
    #[must_use]
    pub fn user_id(mut self, id: UserId) -> Self {
        self.user_id = Some(id);
        self
    }

    /// Sets a free value, replacing one under the same key.
    #[must_use]
    pub fn value(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.values.insert(key.into(), value.into());
        self
    }

    /// Finishes the metadata.
    ///
    /// # Errors
    /// [`ValidationError`] if a key is empty or all of it takes more than 64 KiB as JSON.
    pub fn build(self) -> Result<EventMetadata, ValidationError> {
        if self == Self::default() {
            return Ok(EventMetadata::empty());
        }
        if self.values.contains_key("") {
            return Err(ValidationError::new("EventMetadata", Problem::Empty));
        }
        let json = serde_json::to_string(&self).map_err(|error| {
            ValidationError::new(
                "EventMetadata",
                Problem::Malformed { text: error.to_string(), expected: "metadata that JSON can hold" },
            )
        })?;
        if json.len() > MAX_METADATA_BYTES {
            return Err(ValidationError::new(
                "EventMetadata",
                Problem::TooLarge { bytes: json.len(), limit: MAX_METADATA_BYTES },
            ));
        }
        Ok(EventMetadata(Some(Arc::new(Shared { fields: self, json }))))
    }
}
