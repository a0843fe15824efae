//! Generators of valid values, for property tests: strategies of [`proptest`](mod@proptest).
//!
//! ```
//! use eventcore_testing::strategies;
//! use proptest::prelude::*;
//!
//! proptest! {
//!     # #[allow(unused_doc_comments)]
//!     /// A name is what it was made of.
//!     fn names_are_kept(stream in strategies::stream_ids()) {
//!         let again: eventcore::StreamId = stream.as_str().parse().unwrap();
//!         prop_assert_eq!(again, stream);
//!     }
//! }
//! # fn main() {}
//! ```

use bytes::Bytes;
use eventcore::{
    CausationId, CommandId, CorrelationId, EventId, EventMetadata, EventType, ExpectedVersion, GlobalPosition,
    NewEvent, PageSize, Payload, ProjectionName, SchemaVersion, StreamId, StreamPrefix, StreamVersion, Timestamp,
    UserId,
};
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;

/// The highest version and position.
const MAX_NUMBER: u64 = i64::MAX as u64;

/// Texts that are valid names: 1 to 255 characters of any script, among them those that databases treat specially; no
/// control characters, no whitespace at the ends.
pub fn names() -> impl Strategy<Value = String> {
    let inside = prop_oneof![
        6 => prop::char::range('!', '~'),
        1 => prop::sample::select(vec!['_', '%', '\'', '"', '\\', '*', '?', '[', ';']),
        1 => prop::sample::select(vec!['é', 'ß', 'İ', 'ı', '日', '🙂', '\u{301}', '\u{200d}', '\u{10ffff}']),
        1 => Just(' '),
    ];
    let ends = || prop::char::range('!', '~');
    prop_oneof![
        1 => ends().prop_map(String::from),
        8 => (ends(), vec(inside.clone(), 0..30), ends()).prop_map(|(first, inside, last)| joined(first, inside, last)),
        1 => (ends(), vec(inside, 253), ends()).prop_map(|(first, inside, last)| joined(first, inside, last)),
    ]
}

fn joined(first: char, inside: Vec<char>, last: char) -> String {
    std::iter::once(first).chain(inside).chain([last]).collect()
}

macro_rules! of_names {
    ($($(#[$doc:meta])* $function:ident: $name:ident;)+) => {$(
        $(#[$doc])*
        pub fn $function() -> impl Strategy<Value = $name> {
            valid("a name", names().prop_map(|text| $name::new(text).ok()))
        }
    )+};
}

of_names! {
    /// Names of streams.
    stream_ids: StreamId;
    /// Beginnings of names of streams.
    stream_prefixes: StreamPrefix;
    /// Stored names of event types.
    event_types: EventType;
    /// Ids of commands.
    command_ids: CommandId;
    /// What belongs together.
    correlation_ids: CorrelationId;
    /// What caused an event.
    causation_ids: CausationId;
    /// On whose behalf an event was written.
    user_ids: UserId;
    /// Names of followers.
    projection_names: ProjectionName;
}

/// Versions of streams, 0 included; most of them small.
pub fn stream_versions() -> impl Strategy<Value = StreamVersion> {
    let numbers = prop_oneof![4 => 0..100_u64, 1 => 0..=MAX_NUMBER, 1 => Just(MAX_NUMBER)];
    valid("a version", numbers.prop_map(|number| StreamVersion::try_new(number).ok()))
}

/// Positions in the log; most of them small.
pub fn global_positions() -> impl Strategy<Value = GlobalPosition> {
    let numbers = prop_oneof![4 => 1..100_u64, 1 => 1..=MAX_NUMBER, 1 => Just(MAX_NUMBER)];
    valid("a position", numbers.prop_map(|number| GlobalPosition::try_new(number).ok()))
}

/// What an append may expect of a stream.
pub fn expected_versions() -> impl Strategy<Value = ExpectedVersion> {
    prop_oneof![
        Just(ExpectedVersion::Any),
        Just(ExpectedVersion::NoStream),
        Just(ExpectedVersion::StreamExists),
        stream_versions().prop_map(ExpectedVersion::Exact),
    ]
}

/// Versions of payloads.
pub fn schema_versions() -> impl Strategy<Value = SchemaVersion> {
    let numbers = prop_oneof![4 => 1..10_u32, 1 => 1..=i32::MAX as u32];
    valid("a schema version", numbers.prop_map(|number| SchemaVersion::try_new(number).ok()))
}

/// Sizes of pages.
pub fn page_sizes() -> impl Strategy<Value = PageSize> {
    let numbers = prop_oneof![4 => 1..20_u32, 1 => 1..=10_000_u32];
    valid("a page size", numbers.prop_map(|number| PageSize::try_new(number).ok()))
}

/// Ids of events: UUIDs of version 7 with any time and any randomness.
pub fn event_ids() -> impl Strategy<Value = EventId> {
    let text = |(time, a, b): (u64, u16, u64)| {
        let (time, a, b) = (time & 0xffff_ffff_ffff, a & 0xfff, b & 0x3fff_ffff_ffff_ffff | 0x8000_0000_0000_0000);
        format!("{time:012x}7{a:03x}{b:016x}")
    };
    valid("an event id", any::<(u64, u16, u64)>().prop_map(move |parts| text(parts).parse().ok()))
}

/// Times to the microsecond, from the year 1 to the year 9999.
pub fn timestamps() -> impl Strategy<Value = Timestamp> {
    let micros = -62_135_596_800_000_000..253_402_300_799_999_999_i64;
    valid("a time", micros.prop_map(|micros| Timestamp::from_micros(micros).ok()))
}

/// Metadata: anything from nothing to all of its fields, with free values of any text.
pub fn metadata() -> impl Strategy<Value = EventMetadata> {
    let ids = (
        prop::option::of(correlation_ids()),
        prop::option::of(causation_ids()),
        prop::option::of(user_ids()),
        btree_map(any::<String>().prop_filter("a key is not empty", |key| !key.is_empty()), any::<String>(), 0..5),
    );
    let build = |(correlation, causation, user, values): (
        Option<_>,
        Option<_>,
        Option<_>,
        std::collections::BTreeMap<_, _>,
    )| {
        let builder = EventMetadata::builder();
        let builder = correlation.into_iter().fold(builder, |builder, id| builder.correlation_id(id));
        let builder = causation.into_iter().fold(builder, |builder, id| builder.causation_id(id));
        let builder = user.into_iter().fold(builder, |builder, id| builder.user_id(id));
        values
            .into_iter()
            .fold(builder, |builder, (key, value): (String, String)| builder.value(key, value))
            .build()
            .ok()
    };
    valid("metadata", ids.prop_map(build))
}

/// Payloads: JSON as people write it, with numbers and escapes that do not survive being parsed and written anew; and bytes.
pub fn payloads() -> impl Strategy<Value = Payload> {
    prop_oneof![
        json_texts().prop_map(Payload::json),
        vec(any::<u8>(), 0..200).prop_map(|bytes| Payload::binary(Bytes::from(bytes))),
    ]
}

/// Texts that are valid JSON.
pub fn json_texts() -> impl Strategy<Value = String> {
    let scalar = prop::sample::select(vec![
        "null",
        "true",
        "0",
        "-0",
        "1.0",
        "1.10",
        "1e2",
        "1E+2",
        "18446744073709551616",
        "0.1000000000000000055511151231257827",
        r#""""#,
        r#""\u0000""#,
        r#""\u00e9\/""#,
        r#""\ud83d\ude42""#,
        r#""é🙂""#,
        r#""a \"quoted\" text""#,
    ]);
    let spaces = || prop::sample::select(vec!["", "", "", " ", "\n  ", "\t"]);
    scalar.prop_map(str::to_owned).prop_recursive(3, 20, 4, move |inner| {
        let key = || prop::sample::select(vec!["a", "b", "B", "", "ключ", "a"]);
        prop_oneof![
            (vec(inner.clone(), 0..4), spaces())
                .prop_map(|(items, space)| format!("[{space}{}{space}]", items.join(","))),
            (vec((key(), inner), 0..4), spaces()).prop_map(|(fields, space)| {
                let fields: Vec<_> = fields.iter().map(|(key, value)| format!("\"{key}\":{space}{value}")).collect();
                format!("{{{space}{}}}", fields.join(","))
            }),
        ]
    })
}

/// Events that can be appended.
pub fn new_events() -> impl Strategy<Value = NewEvent> {
    (event_ids(), event_types(), schema_versions(), payloads(), metadata()).prop_map(
        |(id, event_type, schema_version, payload, metadata)| NewEvent {
            id,
            event_type,
            schema_version,
            payload,
            metadata,
        },
    )
}

/// Values that are there; the strategies above make valid ones, so that none is left out.
fn valid<T: std::fmt::Debug>(what: &'static str, values: impl Strategy<Value = Option<T>>) -> impl Strategy<Value = T> {
    values.prop_filter_map(what, |value| value)
}
