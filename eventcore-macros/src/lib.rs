//! The derive macros of `eventcore`, which re-exports them: depend on that crate, not on this one.
//!
//! - [`derive@Event`] stores each variant of an enum, or a struct, as an event type of its own.
//! - [`derive@Command`] makes the `#[stream]` fields of a struct the streams of a command.
//!
//! Everything that can be checked is checked when the program is compiled: stored names, versions, the steps of
//! upcasting, and which streams a command may append to. The generated code has no path of its own to panic on, stands on
//! absolute paths, and brings no warning into the crate that uses it.
//!
//! ```
//! use eventcore::{Command, CommandLogic, Event, NewEvents, RecordedEvent, StreamId, require};
//! use serde::{Deserialize, Serialize};
//!
//! #[derive(Serialize, Deserialize, Event)]
//! #[event(namespace = "bank")]
//! enum BankEvent {
//!     Deposited { cents: u64 },
//!     Withdrawn { cents: u64 },
//! }
//!
//! #[derive(Command)]
//! struct Withdraw {
//!     #[stream]
//!     account: StreamId,
//!     cents: u64,
//! }
//!
//! #[derive(Debug, thiserror::Error)]
//! #[error("not enough money")]
//! struct NotEnough;
//!
//! impl CommandLogic for Withdraw {
//!     type Event = BankEvent;
//!     type State = u64;
//!     type Error = NotEnough;
//!
//!     fn apply(&self, balance: &mut u64, event: &RecordedEvent<BankEvent>) {
//!         match event.payload() {
//!             BankEvent::Deposited { cents } => *balance += cents,
//!             BankEvent::Withdrawn { cents } => *balance -= cents,
//!         }
//!     }
//!
//!     fn handle(&self, balance: &u64, streams: &WithdrawStreams) -> Result<NewEvents<Self>, NotEnough> {
//!         require!(*balance >= self.cents, NotEnough);
//!         Ok(NewEvents::new().append(&streams.account, BankEvent::Withdrawn { cents: self.cents }))
//!     }
//! }
//! ```

mod command;
mod event;
mod names;

use proc_macro::TokenStream;
use syn::{DeriveInput, parse_macro_input};

/// Implements `eventcore::Event` (and `NestedEvent`) for an enum or a struct that derives serde's `Serialize` and
/// `Deserialize`.
///
/// Of an **enum**, each variant is an event type: it is stored under `namespace.Variant`, and its payload is the
/// variant's fields. A **struct** is one event type, stored under `namespace.Struct`.
///
/// ```
/// use eventcore::Event;
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Serialize, Deserialize, Event)]
/// #[event(namespace = "bank")]
/// enum BankEvent {
///     Frozen,
///     Renamed(String),
///     Moved(u32, u32),
///     Deposited { cents: u64 },
/// }
///
/// fn json(event: &BankEvent) -> String {
///     String::from_utf8_lossy(event.encode().unwrap().bytes()).into_owned()
/// }
///
/// assert_eq!(BankEvent::Frozen.event_type().as_str(), "bank.Frozen");
/// assert_eq!(json(&BankEvent::Frozen), "{}");
/// assert_eq!(json(&BankEvent::Renamed("joint".into())), r#""joint""#);
/// assert_eq!(json(&BankEvent::Moved(1, 2)), "[1,2]");
/// assert_eq!(json(&BankEvent::Deposited { cents: 5 }), r#"{"cents":5}"#);
/// ```
///
/// # Attributes
///
/// On the enum:
///
/// - `#[event(namespace = "bank")]`: what its stored names begin with. Needed unless all variants are nested.
///
/// On a variant, and beside `namespace` on a struct:
///
/// - `name = "MoneyIn"`: the stored name without its namespace, in place of the Rust name. Give one before the Rust name
///   changes: what is stored stays as it is.
/// - `alias = "legacy.Deposit"`: a further full name under which older events were stored. It is read, never written.
///   May be given several times.
/// - `version = 2`: the schema version that is written, from 1; 1 if it is not given.
/// - `upcast(from = 1, with = path)`: how an older payload is read, see below. May be given several times.
///
/// On a variant alone:
///
/// - `nested`: the variant holds another event, see below.
///
/// A stored name has 1 to 255 characters, no control characters and no whitespace at either end. Two equal names or
/// aliases in one event do not compile.
///
/// # Serde
///
/// The payload goes through serde as the type says it: every attribute of fields counts (`rename`, `default`, `skip`,
/// `skip_serializing_if`, `flatten`, `with`, ..), and so do those of containers and variants that concern the fields
/// (`rename_all`, `rename_all_fields`, `deny_unknown_fields`, `with`, `bound`, ..). What serde calls a *variant*
/// (`rename` on a variant, `rename_all` on an enum) is never stored: names come from `#[event(..)]` alone.
///
/// `tag`, `content`, `untagged`, `from`, `into` and `try_from` on an enum, and `skip`, `other` and `untagged` on a
/// variant, would hide the variants and are refused. On a struct, all of them work.
///
/// Encoding refuses, with an `EncodeError`, what JSON would lose: NaN, infinite floats, and nesting deeper than 127
/// levels. Two limits are those of serde itself: `Some(None)` comes back as `None`, and fields of type `u128` and `i128`
/// are not read within `flatten`, nor within fields whose own types are tagged or untagged enums.
///
/// # Versions and upcasting
///
/// An upcaster is a function that makes a payload of the next version. When an older event is decoded, all steps from
/// its version on are applied; what is stored stays as it is. The error is anything that converts into
/// `Box<dyn Error + Send + Sync>`; the caller gets it as the `source()` of `DecodeError::Upcast`.
///
/// ```
/// use eventcore::{Event, EventType, Payload, SchemaVersion};
/// use serde::{Deserialize, Serialize};
/// use serde_json::{Value, json};
///
/// #[derive(Debug, PartialEq, Serialize, Deserialize, Event)]
/// #[event(namespace = "bank")]
/// enum BankEvent {
///     #[event(name = "MoneyIn", alias = "legacy.Deposit", version = 3)]
///     #[event(upcast(from = 1, with = name_the_amount), upcast(from = 2, with = count_cents))]
///     Deposited { cents: u64 },
/// }
///
/// fn name_the_amount(bare: Value) -> Result<Value, std::convert::Infallible> {
///     Ok(json!({ "euros": bare }))
/// }
///
/// fn count_cents(old: Value) -> Result<Value, &'static str> {
///     let euros = old["euros"].as_u64().ok_or("no euros in it")?;
///     Ok(json!({ "cents": euros * 100 }))
/// }
///
/// let event = BankEvent::decode(&EventType::new("legacy.Deposit")?, SchemaVersion::try_new(1)?, &Payload::json("5"))?;
/// assert_eq!(event, BankEvent::Deposited { cents: 500 });
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// The steps given must lead to the current version without a gap, or the event does not compile. Decoding an event that
/// is older than the first step is `DecodeError::NoUpcaster`; one from a newer program is `DecodeError::NewerSchema`.
/// The `Value` holds integers of up to 64 bits; larger ones become floats in it.
///
/// # Nested events
///
/// Enums are composed of enums with `nested`. A nested event is stored as it is on its own, so it can be moved in and
/// out of compositions without a trace in the store.
///
/// ```
/// use eventcore::Event;
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Serialize, Deserialize, Event)]
/// #[event(namespace = "account")]
/// enum AccountEvent {
///     Opened,
/// }
///
/// #[derive(Serialize, Deserialize, Event)]
/// #[event(namespace = "card")]
/// struct CardIssued {
///     number: String,
/// }
///
/// #[derive(Event)]
/// enum BankEvent {
///     #[event(nested)]
///     Account(AccountEvent),
///     #[event(nested)]
///     Card(CardIssued),
/// }
///
/// assert_eq!(BankEvent::Account(AccountEvent::Opened).event_type().as_str(), "account.Opened");
/// ```
///
/// Nested events that share a stored name or alias do not compile, since nobody could tell them apart:
///
/// ```compile_fail
/// # use eventcore::Event;
/// # use serde::{Deserialize, Serialize};
/// #[derive(Serialize, Deserialize, Event)]
/// #[event(namespace = "bank")]
/// struct Opened;
///
/// #[derive(Serialize, Deserialize, Event)]
/// #[event(namespace = "bank")]
/// enum AccountEvent {
///     Opened,
/// }
///
/// #[derive(Event)]
/// enum BankEvent {
///     #[event(nested)]
///     One(Opened),
///     #[event(nested)]
///     Other(AccountEvent),
/// }
/// ```
///
/// # Generics
///
/// Type and const parameters are allowed; the stored names are the same whatever the arguments are. Lifetimes are
/// refused, since an event is read back from the store and owns its data.
#[proc_macro_derive(Event, attributes(event))]
pub fn derive_event(input: TokenStream) -> TokenStream {
    let input = parse_macro_input!(input as DeriveInput);
    event::derive(&input).unwrap_or_else(syn::Error::into_compile_error).into()
}

/// Implements `eventcore::Command` for a struct, and makes the struct of its stream handles.
///
/// Every field marked `#[stream]` names a stream, or several. For a command `Transfer` the derive makes
/// `TransferStreams`, as visible as the command, with a handle for each of them; `CommandLogic::handle` is lent one. Only
/// a handle can be appended to, so a write to a stream that the command did not declare does not compile.
///
/// ```
/// use eventcore::{Command, StreamHandle, StreamId, StreamName, ReadHandle, ValidationError};
///
/// struct AccountId(u64);
///
/// impl StreamName for AccountId {
///     fn stream_id(&self) -> Result<StreamId, ValidationError> {
///         StreamId::new(format!("account-{}", self.0))
///     }
/// }
///
/// #[derive(Command)]
/// #[command(name = "bank.transfer")]
/// struct Transfer {
///     #[stream]
///     from: AccountId,
///     #[stream]
///     to: Vec<AccountId>,
///     #[stream(read_only)]
///     limits: Option<StreamId>,
///     cents: u64,
/// }
///
/// fn handles(streams: &TransferStreams) {
///     let from: &StreamHandle<Transfer> = &streams.from;
///     let to: &Vec<StreamHandle<Transfer>> = &streams.to;
///     let limits: &Option<ReadHandle<Transfer>> = &streams.limits;
///     let found: &[StreamHandle<Transfer>] = streams.discovered().writable();
/// }
/// assert_eq!(Transfer::command_type(), "bank.transfer");
/// # let _ = (handles, |t: Transfer| t.cents);
/// ```
///
/// # Attributes
///
/// - `#[stream]` on a field: the command reads the stream and may append to it.
/// - `#[stream(read_only)]`: the command only reads it. The append still checks that it did not change in between.
/// - `#[command(name = "bank.transfer")]` on the struct: the stable name of the command's type, which is part of the
///   receipts of executions with a command id; by default the struct's name. Give one before the struct is renamed.
///
/// # Fields
///
/// A stream field is a `StreamId`, a type of yours that implements `StreamName`, or a `Vec` or `Option` of one. These two
/// are recognised by how they are written: the last part of the path is `Vec` or `Option`, with one argument. An alias
/// for one of them is not seen through, and does not compile.
///
/// At least one stream field is needed: a command that finds streams while it runs starts from one as well. Streams found
/// by `CommandLogic::discover` are lent by `streams.discovered()`.
///
/// Two fields that name one stream are one participant; if one of them writes, it is written.
///
/// # Tuple structs
///
/// The handle of field `1` is called `stream_1`, whatever other fields there are:
///
/// ```
/// use eventcore::{Command, StreamHandle, StreamId};
///
/// #[derive(Command)]
/// struct Close(String, #[stream] StreamId);
///
/// fn handle(streams: &CloseStreams) -> &StreamHandle<Close> {
///     &streams.stream_1
/// }
/// # let _ = (handle, |c: Close| c.0);
/// ```
///
/// # Generics
///
/// Type and const parameters are allowed; the struct of the handles has the same ones. The implementation holds where
/// the command is `Send + Sync + 'static` and its stream fields name streams, so these need not be written at the struct:
///
/// ```
/// use eventcore::{Command, StreamId};
///
/// #[derive(Command)]
/// struct Close<T> {
///     #[stream]
///     account: T,
/// }
/// assert_eq!(Close::<StreamId>::command_type(), "Close");
/// # let _ = |c: Close<StreamId>| c.account;
/// ```
///
/// Lifetimes are refused, since a command is decided again when it meets a conflict and owns its data. So are enums
/// (make each variant a command), unions, and structs without a stream.
#[proc_macro_derive(Command, attributes(command, stream))]
pub fn derive_command(input: TokenStream) -> TokenStream {
    let input = parse_macro_input!(input as DeriveInput);
    command::derive(&input).unwrap_or_else(syn::Error::into_compile_error).into()
}
