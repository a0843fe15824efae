//! The name of the Postgres schema that holds a log.

use eventcore::{Problem, ValidationError};
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// The name of the Postgres schema that holds a log: `eventcore` by default. Several logs in one database have one each.
///
/// 1 to 48 lower-case letters, digits and underscores, not beginning with a digit or `pg_`, so that it never needs quotes.
///
/// ```
/// use eventcore_postgres::SchemaName;
///
/// assert_eq!(SchemaName::default().as_str(), "eventcore");
/// assert!("billing_log".parse::<SchemaName>().is_ok());
/// assert!("billing; drop table x".parse::<SchemaName>().is_err());
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SchemaName(Arc<str>);

impl SchemaName {
    const MAX_CHARS: usize = 48;

    /// Validates a name.
    ///
    /// # Errors
    /// [`ValidationError`] if it is empty, too long, or holds other characters.
    pub fn new(text: impl AsRef<str>) -> Result<Self, ValidationError> {
        let text = text.as_ref();
        let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        let problem = if text.is_empty() {
            Problem::Empty
        } else if text.len() > Self::MAX_CHARS {
            Problem::TooLong { length: text.chars().count(), limit: Self::MAX_CHARS }
        } else if !text.chars().all(fits) || text.starts_with(|c: char| c.is_ascii_digit()) || text.starts_with("pg_") {
            let expected = "lower-case letters, digits and underscores that begin with neither a digit nor pg_";
            Problem::Malformed { text: text.to_owned(), expected }
        } else {
            return Ok(Self(Arc::from(text)));
        };
        Err(ValidationError::new("SchemaName", problem))
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for SchemaName {
    fn default() -> Self {
        Self(Arc::from("eventcore"))
    }
}

impl FromStr for SchemaName {
    type Err = ValidationError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::new(text)
    }
}

impl fmt::Display for SchemaName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
