//! Names, ids and times that events carry.

use crate::text::Text;
use crate::validation::{check_range, name_type};
use crate::{Problem, ValidationError};
use chrono::{DateTime, Utc};
use nutype::nutype;
use std::time::{SystemTime, UNIX_EPOCH};
use uuid::Uuid;

name_type! {
    /// The stored name of a kind of event, for example `bank.MoneyDeposited`: explicit and stable, never a Rust path.
    EventType, check_event_type
}

impl EventType {
    /// A name that is part of the program.
    pub(super) fn of_program(name: &'static str) -> Result<Self, ValidationError> {
        Self::try_new(Text::of_program(name))
    }
}

name_type! {
    /// The identity of one command: however often it is executed, it has one effect.
    CommandId, check_command_id
}

name_type! {
    /// What belongs together: all events that one request, conversation or process led to.
    CorrelationId, check_correlation_id
}

name_type! {
    /// What caused an event: the id of a command or of another event.
    CausationId, check_causation_id
}

name_type! {
    /// On whose behalf an event was written.
    UserId, check_user_id
}

impl From<&EventId> for CausationId {
    fn from(id: &EventId) -> Self {
        // The text of a UUID is always a valid name, so the error branch cannot be taken.
        Self::new(id.to_string()).unwrap_or_else(|_| unreachable!("a UUID is a valid name"))
    }
}

fn check_schema_version(value: &u32) -> Result<(), ValidationError> {
    check_range("SchemaVersion", u64::from(*value), 1, i32::MAX as u64)
}

/// The version of an event type's payload, from 1. Older ones are brought up to date by upcasters when read.
#[nutype(
    validate(with = check_schema_version, error = ValidationError),
    default = 1,
    derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Display, Default, Serialize, Deserialize)
)]
pub struct SchemaVersion(u32);

impl SchemaVersion {
    /// The version as a number.
    #[must_use]
    pub fn get(self) -> u32 {
        self.into_inner()
    }
}

fn check_event_id(id: &Uuid) -> Result<(), ValidationError> {
    if id.get_version_num() == 7 && id.get_variant() == uuid::Variant::RFC4122 {
        return Ok(());
    }
    Err(ValidationError::new("EventId", Problem::NotUuidV7 { version: id.get_version_num() }))
}

/// The identity of an event: a UUID of version 7. Any other version is refused.
///
/// ```
/// use eventcore::EventId;
///
/// let id = EventId::generate();
/// assert_eq!(id.to_string().parse::<EventId>()?, id);
/// # Ok::<(), eventcore::ValidationError>(())
/// ```
#[nutype(
    validate(with = check_event_id, error = ValidationError),
    derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Display, Serialize, Deserialize)
)]
pub struct EventId(Uuid);

impl EventId {
    /// A new id, from the clock and a generator of the thread's that the system seeds. Only drivers call it; domain code and
    /// machines never do. A process that was forked without `exec` must make none: it would repeat those of its parent.
    #[must_use]
    pub fn generate() -> Self {
        Self::try_new(Uuid::now_v7()).unwrap_or_else(|_| unreachable!("now_v7 makes a UUID of version 7"))
    }

    /// The id as a UUID.
    #[must_use]
    pub fn as_uuid(&self) -> Uuid {
        self.into_inner()
    }
}

impl std::str::FromStr for EventId {
    type Err = ValidationError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let malformed = || Problem::Malformed { text: text.to_owned(), expected: "a UUID" };
        let uuid = Uuid::parse_str(text).map_err(|_| ValidationError::new("EventId", malformed()))?;
        Self::try_new(uuid)
    }
}

/// A point in time in UTC, to the microsecond: what every adapter stores and gives back unchanged.
///
/// It is information for people. Order comes from [`GlobalPosition`](crate::GlobalPosition), never from a clock.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(from = "DateTime<Utc>", into = "DateTime<Utc>")]
pub struct Timestamp {
    /// Since the beginning of 1970; within the calendar's range.
    micros: i64,
}

/// The calendar's range.
const MIN_MICROS: i64 = DateTime::<Utc>::MIN_UTC.timestamp_micros();
const MAX_MICROS: i64 = DateTime::<Utc>::MAX_UTC.timestamp_micros();

impl Timestamp {
    /// The time of the system's clock. Only drivers and adapters call it.
    #[must_use]
    pub fn now() -> Self {
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).ok().map(|time| time.as_micros());
        let micros = since_1970.and_then(|micros| i64::try_from(micros).ok());
        micros.and_then(|micros| Self::from_micros(micros).ok()).unwrap_or_else(|| Self::from(Utc::now()))
    }

    /// The time `micros` microseconds after the beginning of 1970.
    ///
    /// # Errors
    /// [`ValidationError`] outside of the calendar's range (some 262,000 years to either side).
    pub fn from_micros(micros: i64) -> Result<Self, ValidationError> {
        if (MIN_MICROS..=MAX_MICROS).contains(&micros) {
            return Ok(Self { micros });
        }
        let (value, min, max) = (i128::from(micros), i128::from(MIN_MICROS), i128::from(MAX_MICROS));
        Err(ValidationError::new("Timestamp", Problem::OutOfRange { value, min, max }))
    }

    /// Microseconds since the beginning of 1970.
    #[must_use]
    pub const fn as_micros(self) -> i64 {
        self.micros
    }

    /// The time as chrono's type.
    #[must_use]
    pub fn as_datetime(self) -> DateTime<Utc> {
        // Within the calendar's range, so there is one.
        DateTime::from_timestamp_micros(self.micros).unwrap_or_default()
    }
}

impl From<DateTime<Utc>> for Timestamp {
    /// Cuts off what lies below the microsecond, towards the past.
    fn from(time: DateTime<Utc>) -> Self {
        // Whole seconds are rounded towards the past, and what is added to them is never negative.
        Self { micros: time.timestamp_micros() }
    }
}

impl From<Timestamp> for DateTime<Utc> {
    fn from(time: Timestamp) -> Self {
        time.as_datetime()
    }
}

impl std::fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Timestamp").field(&self.as_datetime()).finish()
    }
}

impl std::fmt::Display for Timestamp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.as_datetime().format("%Y-%m-%dT%H:%M:%S%.6fZ"))
    }
}
