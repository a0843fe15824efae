//! Events: what happened, in the words of the domain, and how it is stored.

mod buffer;
mod ids;
mod metadata;
mod payload;
mod recorded;
mod stored_type;
mod strict;
mod traits;
mod variant;

pub use ids::{CausationId, CommandId, CorrelationId, EventId, EventType, SchemaVersion, Timestamp, UserId};
pub use metadata::{EventMetadata, EventMetadataBuilder};
pub use payload::{ContentType, Payload};
pub use recorded::{EventHeader, NewEvent, RecordedEvent};
pub use stored_type::{EventNames, NestedEvent};
pub use traits::{DecodeError, EncodeError, Event, EventTypeInfo};

/// What the code of `#[derive(Event)]` stands on.
pub(crate) mod derived {
    pub use super::stored_type::{StoredType, Upcaster, event_types, unknown_type};
    pub use super::variant::{Struct, UnitStruct, Variant};
}
