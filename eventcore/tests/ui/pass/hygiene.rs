//! The generated code stands on full paths, and brings no warning to a crate that forbids them.

#![deny(warnings, missing_docs, missing_debug_implementations, unreachable_pub, unused_qualifications, unsafe_code)]
#![allow(non_camel_case_types, dead_code, non_upper_case_globals)]
#![no_implicit_prelude]

mod names {
    //! Names that careless code would pick up.

    pub(super) struct Option;
    pub(super) struct Result;
    pub(super) struct Vec;
    pub(super) struct Ok;
    pub(super) struct Err;
    pub(super) const event_type: u8 = 0;
    pub(super) const payload: u8 = 0;
    pub(super) const streams: u8 = 0;
    pub(super) const f: u8 = 0;
    pub(super) const inner: u8 = 0;
}
#[allow(unused_imports)]
use names::*;

/// Things that happen to accounts.
#[derive(::std::fmt::Debug, ::serde::Serialize, ::serde::Deserialize, ::eventcore::Event)]
#[event(namespace = "bank")]
pub enum BankEvent {
    /// It was opened.
    Opened {
        /// By whom.
        owner: ::std::string::String,
    },
    /// It was closed.
    #[event(name = "Shut", version = 2, alias = "bank.Ended", upcast(from = 1, with = upcast))]
    Closed(u8, u8),
    /// No longer written.
    #[deprecated]
    Renamed,
    /// Of the account's cards.
    #[event(nested)]
    Card(CardIssued),
}

/// A card was issued.
#[derive(::std::fmt::Debug, ::serde::Serialize, ::serde::Deserialize, ::eventcore::Event)]
#[event(namespace = "card")]
pub struct CardIssued;

fn upcast(value: ::serde_json::Value) -> ::std::result::Result<::serde_json::Value, ::std::fmt::Error> {
    ::std::result::Result::Ok(value)
}

/// Opens an account.
#[derive(::std::fmt::Debug, ::eventcore::Command)]
#[command(name = "bank.open")]
pub struct Open<T> {
    /// The account.
    #[stream]
    pub account: T,
    /// Its limits.
    #[stream(read_only)]
    pub limits: ::std::option::Option<::eventcore::StreamId>,
    /// Accounts that pay.
    #[stream]
    pub payers: ::std::vec::Vec<T>,
}

/// Opens an account, in short.
#[derive(::std::fmt::Debug, ::eventcore::Command)]
pub struct OpenShort(
    /// The account.
    #[stream]
    pub ::eventcore::StreamId,
);

#[derive(::eventcore::Command)]
struct Private {
    #[stream(read_only)]
    never_used: ::eventcore::StreamId,
    #[stream]
    r#type: ::eventcore::StreamId,
}

/// Definitions out of a macro, with pieces from inside and outside of it.
macro_rules! define {
    ($event:ident, $variant:ident, $upcast:path, $command:ident, $field:ident, $stream:ty, $streams:ty) => {
        /// An event out of a macro.
        #[derive(::std::fmt::Debug, ::serde::Serialize, ::serde::Deserialize, ::eventcore::Event)]
        #[event(namespace = "macro")]
        pub enum $event {
            /// Both.
            #[event(version = 2, upcast(from = 1, with = $upcast))]
            $variant {
                /// From outside.
                $field: u8,
                /// From inside.
                inside: u8,
            },
            /// From inside.
            #[event(nested)]
            Inside(CardIssued),
        }

        /// A command out of a macro.
        #[derive(::std::fmt::Debug, ::eventcore::Command)]
        pub struct $command {
            /// From outside.
            #[stream]
            pub $field: $stream,
            /// From inside.
            #[stream(read_only)]
            pub inside: ::std::vec::Vec<$stream>,
            /// From outside, as a whole.
            #[stream]
            pub several: $streams,
            /// From inside too.
            #[stream]
            pub maybe: ::std::option::Option<::eventcore::StreamId>,
        }
    };
}
define!(MacroEvent, Happened, upcast, MacroCommand, field, ::eventcore::StreamId, ::std::vec::Vec<::eventcore::StreamId>);

fn main() {
    use ::eventcore::{Command, Event};

    ::std::assert_eq!(CardIssued.event_type().as_str(), "card.CardIssued");
    ::std::assert_eq!(<Open<::eventcore::StreamId> as Command>::command_type(), "bank.open");
}
