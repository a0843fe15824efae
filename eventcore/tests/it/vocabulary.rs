//! Every constructor of the vocabulary, with good and bad input.

use eventcore::{
    AppendRequest, BackoffMultiplier, CausationId, CommandId, CorrelationId, EventFilter, EventId, EventMetadata,
    EventType, ExpectedVersion, Fingerprint, GlobalPosition, InvalidAppend, LineageId, MaxAttempts,
    MaxConsecutiveFailures, MaxRetryAttempts, NewEvent, PageSize, Payload, Problem, ProjectionName, QueueCapacity,
    ReadStreams, SchemaVersion, StreamCategory, StreamId, StreamPrefix, StreamVersion, Timestamp, UserId,
    ValidationError,
};
use proptest::prelude::*;
use serde::{Serialize, de::DeserializeOwned};
use uuid::Uuid;

/// What a name may be, said another way than in the library.
fn is_name(text: &str) -> bool {
    let chars: Vec<char> = text.chars().collect();
    let edge = |c: Option<&char>| c.is_some_and(|c| !c.is_whitespace());
    (1..=255).contains(&chars.len())
        && chars.iter().all(|c| !c.is_control())
        && edge(chars.first())
        && edge(chars.last())
}

fn any_text() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => "\\PC{1,40}",
        2 => any::<String>(),
        1 => "[a-zé€𝄞]{250,260}",
        1 => "[ \t\n\u{a0}]{0,2}[a-z]{0,3}[ \t\r\u{2003}]{0,2}",
        1 => "[a-z]{0,4}[\u{0}-\u{1f}\u{7f}-\u{9f}]{0,1}[a-z]{0,4}",
    ]
}

fn check_name<T>(what: &str, text: &str, make: impl Fn(&str) -> Result<T, ValidationError>) -> Result<(), TestCaseError>
where
    T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug + std::fmt::Display,
{
    match make(text) {
        Ok(name) => {
            prop_assert!(is_name(text), "{what} took {text:?}");
            prop_assert_eq!(name.to_string(), text);
            let json = serde_json::to_string(&name).unwrap();
            prop_assert_eq!(&json, &serde_json::to_string(text).unwrap());
            prop_assert_eq!(serde_json::from_str::<T>(&json).unwrap(), name);
        }
        Err(error) => {
            prop_assert!(!is_name(text), "{what} refused {text:?}: {error}");
            prop_assert_eq!(error.what(), what);
            prop_assert!(serde_json::from_str::<T>(&serde_json::to_string(text).unwrap()).is_err());
        }
    }
    Ok(())
}

proptest! {
    #[test]
    fn names(text in any_text()) {
        check_name("StreamId", &text, |text| StreamId::new(text))?;
        check_name("EventType", &text, |text| EventType::new(text))?;
        check_name("CommandId", &text, |text| CommandId::new(text))?;
        check_name("CorrelationId", &text, |text| CorrelationId::new(text))?;
        check_name("CausationId", &text, |text| CausationId::new(text))?;
        check_name("UserId", &text, |text| UserId::new(text))?;
        check_name("ProjectionName", &text, |text| ProjectionName::new(text))?;
        prop_assert_eq!(StreamPrefix::new(&text).is_ok(), is_name(&text));
        prop_assert_eq!(text.parse::<StreamId>().is_ok(), is_name(&text));
        prop_assert_eq!(StreamId::try_from(text.as_str()).is_ok(), is_name(&text));
        prop_assert_eq!(StreamId::try_from(text.clone()).is_ok(), is_name(&text));
    }

    #[test]
    fn numbers(number in prop_oneof![0_u64..20_000, any::<u64>()]) {
        let max = i64::MAX as u64;
        prop_assert_eq!(StreamVersion::try_new(number).is_ok(), number <= max);
        prop_assert_eq!(GlobalPosition::try_new(number).is_ok(), (1..=max).contains(&number));
        if let Ok(version) = StreamVersion::try_new(number) {
            prop_assert_eq!(version.get(), number);
            prop_assert_eq!(version.next().is_ok(), number < max);
            let json = serde_json::to_string(&version).unwrap();
            prop_assert_eq!(serde_json::from_str::<StreamVersion>(&json).unwrap(), version);
        }
        let small = number.try_into().unwrap_or(u32::MAX);
        prop_assert_eq!(SchemaVersion::try_new(small).is_ok(), (1..=i32::MAX as u32).contains(&small));
        prop_assert_eq!(PageSize::try_new(small).is_ok(), (1..=10_000).contains(&small));
        prop_assert_eq!(QueueCapacity::try_new(small).is_ok(), (1..=1_000_000).contains(&small));
        prop_assert_eq!(MaxAttempts::try_new(small).is_ok(), (1..=10_000).contains(&small));
        prop_assert_eq!(MaxRetryAttempts::try_new(small).is_ok(), small <= 1_000);
        prop_assert_eq!(MaxConsecutiveFailures::try_new(small).is_ok(), (1..=1_000_000).contains(&small));
    }

    #[test]
    fn multipliers(number in any::<f64>()) {
        prop_assert_eq!(BackoffMultiplier::try_new(number).is_ok(), (1.0..=100.0).contains(&number));
    }

    #[test]
    fn event_ids_are_version_7(bits in any::<u128>()) {
        let uuid = Uuid::from_u128(bits);
        let fits = uuid.get_version_num() == 7 && uuid.get_variant() == uuid::Variant::RFC4122;
        prop_assert_eq!(EventId::try_new(uuid).is_ok(), fits);
        let v7 = uuid::Builder::from_unix_timestamp_millis(bits as u64 >> 20, &[bits as u8; 10]).into_uuid();
        let id = EventId::try_new(v7).unwrap();
        prop_assert_eq!(id.to_string().parse::<EventId>().unwrap(), id);
        prop_assert_eq!(serde_json::from_str::<EventId>(&serde_json::to_string(&id).unwrap()).unwrap(), id);
    }

    #[test]
    fn timestamps_keep_their_microseconds(micros in any::<i64>()) {
        if let Ok(time) = Timestamp::from_micros(micros) {
            prop_assert_eq!(time.as_micros(), micros);
            prop_assert_eq!(Timestamp::from(time.as_datetime()), time);
            prop_assert_eq!(serde_json::from_str::<Timestamp>(&serde_json::to_string(&time).unwrap()).unwrap(), time);
        }
    }

    #[test]
    fn metadata_comes_back(
        correlation in proptest::option::of("[a-z]{1,9}"), causation in proptest::option::of("[a-z]{1,9}"),
        user in proptest::option::of("[a-z]{1,9}"), values in prop::collection::btree_map("\\PC{1,9}", any::<String>(), 0..5),
    ) {
        let mut builder = EventMetadata::builder();
        if let Some(id) = &correlation { builder = builder.correlation_id(CorrelationId::new(id).unwrap()); }
        if let Some(id) = &causation { builder = builder.causation_id(CausationId::new(id).unwrap()); }
        if let Some(id) = &user { builder = builder.user_id(UserId::new(id).unwrap()); }
        for (key, value) in &values { builder = builder.value(key, value); }
        let metadata = builder.build().unwrap();
        let read: EventMetadata = serde_json::from_str(metadata.as_json()).unwrap();
        prop_assert_eq!(&read, &metadata);
        prop_assert_eq!(read.correlation_id().map(|id| id.as_str()), correlation.as_deref());
        prop_assert_eq!(read.causation_id().map(|id| id.as_str()), causation.as_deref());
        prop_assert_eq!(read.user_id().map(|id| id.as_str()), user.as_deref());
        let read_values: Vec<_> = read.values().map(|(k, v)| (k.to_owned(), v.to_owned())).collect();
        prop_assert_eq!(read_values, values.into_iter().collect::<Vec<_>>());
        prop_assert_eq!(metadata.is_empty(), metadata.as_json() == "{}");
    }

    #[test]
    fn filter_identity_tells_selections_apart(
        a in prop::collection::btree_set("[ab]{1,2}", 0..3), b in prop::collection::btree_set("[ab]{1,2}", 0..3),
    ) {
        let streams = |names: &std::collections::BTreeSet<String>| {
            EventFilter::all().streams(names.iter().map(|name| StreamId::new(name).unwrap()))
        };
        let types = |names: &std::collections::BTreeSet<String>| {
            EventFilter::all().types(names.iter().map(|name| EventType::new(name).unwrap()))
        };
        prop_assert_eq!(streams(&a).identity() == streams(&b).identity(), a == b);
        prop_assert_eq!(types(&a).identity() == types(&b).identity(), a == b);
        prop_assert_ne!(types(&a).identity(), streams(&a).identity());
        prop_assert_ne!(types(&a).identity(), EventFilter::all().identity());
    }
}

proptest! {
    #[test]
    fn a_stream_is_in_the_category_before_its_first_dash(
        stream in "[ab_%é][-ab_%é]{0,6}", name in "[-ab_%é]{0,3}",
    ) {
        let stream = StreamId::new(&stream).unwrap();
        let Ok(category) = StreamCategory::new(&name) else {
            prop_assert!(name.is_empty() || name.contains('-'), "{name:?} was refused");
            return Ok(());
        };
        prop_assert_eq!(category.as_str(), &name);
        prop_assert_eq!(category.matches(&stream), stream.category() == Some(name.as_str()));
        let filter = EventFilter::all().category(category.clone());
        prop_assert_eq!(filter.matches(&stream, &"t".parse().unwrap()), category.matches(&stream));
    }
}

#[test]
fn each_problem_is_named() {
    let problem = |text: &str| StreamId::new(text).unwrap_err().problem().clone();
    assert_eq!(problem(""), Problem::Empty);
    assert_eq!(problem(&"x".repeat(256)), Problem::TooLong { length: 256, limit: 255 });
    assert_eq!(problem("a\u{0}b"), Problem::ControlCharacter { character: '\u{0}', index: 1 });
    assert_eq!(problem(" a"), Problem::SurroundingWhitespace);
    assert!(StreamId::new("€".repeat(255)).is_ok(), "the limit counts characters, not bytes");
    let uuid = Uuid::from_u128(0x0000_0000_0000_4000_8000_0000_0000_0000);
    assert_eq!(EventId::try_new(uuid).unwrap_err().problem(), &Problem::NotUuidV7 { version: 4 });
    assert!(matches!("x".parse::<EventId>().unwrap_err().problem(), Problem::Malformed { .. }));
    assert!("x".parse::<LineageId>().is_err());
    let large = EventMetadata::builder().value("k", "v".repeat(70_000)).build().unwrap_err();
    assert!(matches!(large.problem(), Problem::TooLarge { limit: 65_536, .. }), "{large}");
    assert!(EventMetadata::builder().value("", "v").build().is_err());
}

fn event() -> NewEvent {
    NewEvent {
        id: EventId::generate(),
        event_type: "a.B".parse().unwrap(),
        schema_version: SchemaVersion::default(),
        payload: Payload::json("{}"),
        metadata: EventMetadata::empty(),
    }
}

#[test]
fn an_append_that_makes_no_sense_is_refused() {
    let stream = |n: usize| StreamId::new(format!("s{n}")).unwrap();
    let exact = |n| ExpectedVersion::Exact(StreamVersion::try_new(n).unwrap());
    let build = |builder: eventcore::AppendRequestBuilder| builder.build().unwrap_err();

    assert_eq!(build(AppendRequest::builder()), InvalidAppend::Empty);
    assert_eq!(build(AppendRequest::builder().expect(stream(1), ExpectedVersion::Any)), InvalidAppend::Empty);
    let contradicting = AppendRequest::builder().expect(stream(1), exact(1)).event(stream(1), event());
    assert_eq!(
        build(contradicting.expect(stream(1), exact(2))),
        InvalidAppend::ContradictingExpectations { stream_id: stream(1), first: exact(1), second: exact(2) }
    );
    let same = AppendRequest::builder().expect(stream(1), exact(0)).expect(stream(1), ExpectedVersion::NoStream);
    assert_eq!(same.event(stream(1), event()).build().unwrap().streams().len(), 1);

    let many = (0..1_001).fold(AppendRequest::builder(), |builder, n| builder.event(stream(n), event()));
    assert_eq!(build(many), InvalidAppend::TooManyStreams { count: 1_001, limit: 1_000 });
    let many = (0..10_001).fold(AppendRequest::builder(), |builder, _| builder.event(stream(1), event()));
    assert_eq!(build(many), InvalidAppend::TooManyEvents { count: 10_001, limit: 10_000 });
    assert!(ReadStreams::new((0..1_001).map(stream)).is_err());
    assert_eq!(ReadStreams::new([stream(1), stream(2), stream(1)]).unwrap().streams().len(), 2);
}

#[test]
fn a_fingerprint_is_of_the_type_and_the_set_of_streams() {
    let stream = |name: &str| StreamId::new(name).unwrap();
    let (a, b, ab) = (stream("a"), stream("b"), stream("ab"));
    assert_eq!(Fingerprint::of("t", [&a, &b]), Fingerprint::of("t", [&b, &a, &b]));
    assert_ne!(Fingerprint::of("t", [&a, &b]), Fingerprint::of("t", [&ab]));
    assert_ne!(Fingerprint::of("t", [&a]), Fingerprint::of("u", [&a]));
    // Stored receipts must stay valid over versions of the library.
    assert_eq!(Fingerprint::of("bank.Deposit", [&a]).to_string(), "8807b24a-6ba1-59e8-9b91-c0adc56b6b3e");
}
