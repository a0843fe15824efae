//! The bytes of an event, and what they are.

use crate::{Problem, ValidationError};
use bytes::Bytes;

/// How a payload is encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum ContentType {
    /// JSON text in UTF-8, as the derived events write it.
    #[default]
    Json,
    /// Bytes of an encoding the application knows.
    Binary,
}

impl ContentType {
    /// The media type that is stored.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Binary => "application/octet-stream",
        }
    }
}

impl std::str::FromStr for ContentType {
    type Err = ValidationError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "application/json" => Ok(Self::Json),
            "application/octet-stream" => Ok(Self::Binary),
            other => Err(ValidationError::new(
                "ContentType",
                Problem::Malformed { text: other.to_owned(), expected: "application/json or application/octet-stream" },
            )),
        }
    }
}

/// An encoded event. What is read is what was written, byte for byte; a clone shares the bytes.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Payload {
    content_type: ContentType,
    bytes: Bytes,
}

impl Payload {
    /// A payload of JSON text. The text is not checked here; an adapter may refuse what is no JSON.
    #[must_use]
    pub fn json(bytes: impl Into<Bytes>) -> Self {
        Self { content_type: ContentType::Json, bytes: bytes.into() }
    }

    /// A payload of any bytes.
    #[must_use]
    pub fn binary(bytes: impl Into<Bytes>) -> Self {
        Self { content_type: ContentType::Binary, bytes: bytes.into() }
    }

    /// A payload of the given kind.
    #[must_use]
    pub fn new(content_type: ContentType, bytes: impl Into<Bytes>) -> Self {
        Self { content_type, bytes: bytes.into() }
    }

    /// How the bytes are encoded.
    #[must_use]
    pub const fn content_type(&self) -> ContentType {
        self.content_type
    }

    /// The bytes, shared.
    #[must_use]
    pub const fn bytes(&self) -> &Bytes {
        &self.bytes
    }
}
