//! What is wrong with a value that a constructor refused.

use thiserror::Error;

/// A value was refused by the constructor of a validated type.
///
/// It names the type, what was wrong and, where that helps, the number that broke the limit.
///
/// ```
/// use eventcore::StreamId;
///
/// let error = StreamId::new(" account-1").unwrap_err();
/// assert_eq!(error.to_string(), "StreamId: leading or trailing whitespace is not allowed");
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{what}: {problem}")]
pub struct ValidationError {
    what: &'static str,
    problem: Problem,
}

impl ValidationError {
    /// An error about a value of the type called `what`. For domain types that have a stream name.
    #[must_use]
    pub const fn new(what: &'static str, problem: Problem) -> Self {
        Self { what, problem }
    }

    /// The name of the type whose constructor refused the value.
    #[must_use]
    pub const fn what(&self) -> &'static str {
        self.what
    }

    /// What was wrong.
    #[must_use]
    pub const fn problem(&self) -> &Problem {
        &self.problem
    }
}

/// What was wrong with a refused value.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Problem {
    /// The text has no characters.
    #[error("it is empty")]
    Empty,
    /// The text is longer than allowed.
    #[error("it has {length} characters, the limit is {limit}")]
    TooLong {
        /// Its length in characters.
        length: usize,
        /// The highest length allowed, in characters.
        limit: usize,
    },
    /// The value takes more bytes than allowed.
    #[error("it takes {bytes} bytes, the limit is {limit}")]
    TooLarge {
        /// Its size in bytes.
        bytes: usize,
        /// The highest size allowed, in bytes.
        limit: usize,
    },
    /// The text holds a control character.
    #[error("it holds the control character {character:?} at character {index}")]
    ControlCharacter {
        /// The character found.
        character: char,
        /// Where it stands, counted in characters from 0.
        index: usize,
    },
    /// The text begins or ends with whitespace. It is refused rather than trimmed, so that what is read is what was written.
    #[error("leading or trailing whitespace is not allowed")]
    SurroundingWhitespace,
    /// The number lies outside of the range allowed.
    #[error("{value} is outside of {min}..={max}")]
    OutOfRange {
        /// The number given.
        value: i128,
        /// The lowest number allowed.
        min: i128,
        /// The highest number allowed.
        max: i128,
    },
    /// The id is no UUID of version 7.
    #[error("a UUID of version 7 is needed, this one has version {version}")]
    NotUuidV7 {
        /// The version found.
        version: usize,
    },
    /// The text is not of the form needed.
    #[error("{text:?} is not {expected}")]
    Malformed {
        /// The text given.
        text: String,
        /// What was expected instead.
        expected: &'static str,
    },
}

/// The longest name (stream, event type, command id, ..), in characters.
pub(crate) const MAX_NAME_CHARS: usize = 255;

/// The rule of every name: 1 to 255 characters, no control characters, no whitespace at either end.
pub(crate) fn check_name(what: &'static str, text: &str) -> Result<(), ValidationError> {
    if is_plain(text.as_bytes()) {
        return Ok(());
    }
    let problem = if text.is_empty() {
        Problem::Empty
    } else if text.len() > MAX_NAME_CHARS && text.chars().count() > MAX_NAME_CHARS {
        Problem::TooLong { length: text.chars().count(), limit: MAX_NAME_CHARS }
    } else if let Some((index, character)) = text.chars().enumerate().find(|(_, c)| c.is_control()) {
        Problem::ControlCharacter { character, index }
    } else if text.trim().len() != text.len() {
        Problem::SurroundingWhitespace
    } else {
        return Ok(());
    };
    Err(ValidationError::new(what, problem))
}

/// Whether a text is what names nearly always are: short, of ASCII letters, digits and signs, and so without any problem.
fn is_plain(text: &[u8]) -> bool {
    let ends = [text.first(), text.last()];
    text.len() <= MAX_NAME_CHARS
        && ends.iter().all(|end| end.is_some_and(u8::is_ascii_graphic))
        && text.iter().all(|byte| matches!(byte, b' '..=b'~'))
}

/// The rule of every number: within `min..=max`.
pub(crate) fn check_range(what: &'static str, value: u64, min: u64, max: u64) -> Result<(), ValidationError> {
    if (min..=max).contains(&value) {
        return Ok(());
    }
    Err(ValidationError::new(
        what,
        Problem::OutOfRange { value: i128::from(value), min: i128::from(min), max: i128::from(max) },
    ))
}

/// Declares a name: validated by [`check_name`], shared rather than copied when cloned.
macro_rules! name_type {
    ($(#[$doc:meta])* $name:ident, $check:ident) => {
        fn $check(text: &$crate::text::Text) -> Result<(), $crate::ValidationError> {
            $crate::validation::check_name(stringify!($name), text)
        }

        $(#[$doc])*
        ///
        /// 1 to 255 characters, no control characters, no whitespace at either end. A clone is cheap: short text stands in the value, longer text is shared.
        #[nutype::nutype(
            validate(with = $check, error = $crate::ValidationError),
            derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, AsRef, Display, Serialize, Deserialize)
        )]
        pub struct $name($crate::text::Text);

        impl $name {
            /// Validates `text` and copies it once.
            ///
            /// # Errors
            /// [`ValidationError`](crate::ValidationError) if the text is empty, longer than 255 characters, holds a
            /// control character, or begins or ends with whitespace.
            pub fn new(text: impl AsRef<str>) -> Result<Self, $crate::ValidationError> {
                Self::try_new($crate::text::Text::from(text.as_ref()))
            }

            /// The text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                self.as_ref()
            }
        }

        impl std::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str {
                self.as_str()
            }
        }

        impl std::str::FromStr for $name {
            type Err = $crate::ValidationError;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                Self::new(text)
            }
        }

        impl TryFrom<&str> for $name {
            type Error = $crate::ValidationError;

            fn try_from(text: &str) -> Result<Self, Self::Error> {
                Self::new(text)
            }
        }

        impl TryFrom<String> for $name {
            type Error = $crate::ValidationError;

            fn try_from(text: String) -> Result<Self, Self::Error> {
                Self::try_new($crate::text::Text::from(text))
            }
        }
    };
}
pub(crate) use name_type;
