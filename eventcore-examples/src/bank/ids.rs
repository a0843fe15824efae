//! The names of things in the bank.

use super::money::malformed;
use eventcore::{CommandId, Problem, StreamId, StreamName, ValidationError};
use nutype::nutype;

/// The longest id, in characters.
const MAX_ID_CHARS: usize = 64;
/// The longest name of an owner, in characters.
const MAX_OWNER_CHARS: usize = 100;
/// What the names of all account streams begin with.
const STREAM_PREFIX: &str = "account-";

fn check_id(what: &'static str, text: &str) -> Result<(), ValidationError> {
    if text.is_empty() {
        return Err(ValidationError::new(what, Problem::Empty));
    }
    if !text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte)) {
        return Err(malformed(what, text, "an id of ASCII letters, digits, '-', '_' and '.'"));
    }
    if text.len() > MAX_ID_CHARS {
        return Err(ValidationError::new(what, Problem::TooLong { length: text.len(), limit: MAX_ID_CHARS }));
    }
    Ok(())
}

fn check_account_id(text: &str) -> Result<(), ValidationError> {
    check_id("AccountId", text)
}

fn check_transfer_id(text: &str) -> Result<(), ValidationError> {
    check_id("TransferId", text)
}

fn check_owner(text: &str) -> Result<(), ValidationError> {
    let length = text.chars().count();
    let problem = if text.is_empty() {
        Problem::Empty
    } else if length > MAX_OWNER_CHARS {
        Problem::TooLong { length, limit: MAX_OWNER_CHARS }
    } else if let Some((index, character)) = text.chars().enumerate().find(|(_, c)| c.is_control()) {
        Problem::ControlCharacter { character, index }
    } else if text.trim().len() != text.len() {
        Problem::SurroundingWhitespace
    } else {
        return Ok(());
    };
    Err(ValidationError::new("Owner", problem))
}

/// The id of an account: 1 to 64 ASCII letters, digits, `-`, `_` and `.`. The account's stream is `account-<id>`.
///
/// ```
/// use eventcore::StreamName;
/// use eventcore_examples::bank::AccountId;
///
/// let alice: AccountId = "alice".parse()?;
/// assert_eq!(alice.stream_id()?.as_str(), "account-alice");
/// assert_eq!(AccountId::of_stream(&alice.stream_id()?)?, alice);
/// assert!("no spaces".parse::<AccountId>().is_err());
/// # Ok::<(), eventcore::ValidationError>(())
/// ```
#[nutype(
    validate(with = check_account_id, error = ValidationError),
    derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, AsRef, Display, FromStr, Serialize, Deserialize)
)]
pub struct AccountId(String);

impl AccountId {
    /// The account whose events a stream holds.
    ///
    /// # Errors
    /// [`ValidationError`] if it is no stream of an account.
    pub fn of_stream(stream_id: &StreamId) -> Result<Self, ValidationError> {
        let Some(id) = stream_id.as_str().strip_prefix(STREAM_PREFIX) else {
            return Err(malformed("AccountId", stream_id.as_str(), "the name of an account's stream"));
        };
        Self::try_new(id.to_owned())
    }
}

impl StreamName for AccountId {
    fn stream_id(&self) -> Result<StreamId, ValidationError> {
        StreamId::new(format!("{STREAM_PREFIX}{self}"))
    }
}

/// The id of a transfer, given by who asks for it: 1 to 64 ASCII letters, digits, `-`, `_` and `.`.
#[nutype(
    validate(with = check_transfer_id, error = ValidationError),
    derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, AsRef, Display, FromStr, Serialize, Deserialize)
)]
pub struct TransferId(String);

impl TransferId {
    /// A new id.
    #[must_use]
    pub fn generate() -> Self {
        // The text of a UUID always follows the rule, so the error branch cannot be taken.
        Self::try_new(uuid::Uuid::now_v7().to_string()).unwrap_or_else(|_| unreachable!("a UUID is a valid id"))
    }

    /// The id of the transfer's command: asked for twice, money moves once.
    ///
    /// # Errors
    /// None in practice: every transfer id makes a valid command id.
    pub fn command_id(&self) -> Result<CommandId, ValidationError> {
        CommandId::new(format!("transfer-{self}"))
    }
}

/// Who an account belongs to: 1 to 100 characters, no control characters, no whitespace at either end.
#[nutype(
    validate(with = check_owner, error = ValidationError),
    derive(Debug, Clone, PartialEq, Eq, Hash, AsRef, Display, FromStr, Serialize, Deserialize)
)]
pub struct Owner(String);
