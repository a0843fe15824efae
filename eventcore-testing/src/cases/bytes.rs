//! What is read is what was written.

use crate::Environment;
use crate::fixtures::*;
use crate::violation::{ensure, ensure_eq};
use bytes::Bytes;
use eventcore::{
    CausationId, ContentType, CorrelationId, EventFilter, EventMetadata, EventReader, EventStore, NewEvent, PageSize,
    Payload, RecordedEvent, SchemaVersion, UserId,
};

/// Appends the events to one stream and compares what every kind of read brings.
async fn come_back(env: &Environment, events: Vec<NewEvent>) -> Outcome {
    let store = env.fresh().await?;
    let a = stream("a")?;
    store.append(request(&[], events.iter().map(|event| (&a, event.clone())).collect())?).await?;
    let same = |read: Vec<RecordedEvent>, how: &str| -> Outcome {
        ensure_eq!(read.len(), events.len(), "events in {how}");
        for (read, written) in read.iter().zip(&events) {
            ensure_eq!(read.payload().bytes(), written.payload.bytes(), "payload in {how}");
            ensure_eq!(read.payload().content_type(), written.payload.content_type(), "content type in {how}");
            ensure_eq!(read.metadata(), &written.metadata, "metadata in {how}");
            ensure_eq!(read.id(), written.id, "event id in {how}");
            ensure_eq!(read.event_type(), &written.event_type, "event type in {how}");
            ensure_eq!(read.schema_version(), written.schema_version, "schema version in {how}");
        }
        Ok(())
    };
    same(read(&store, &[&a]).await?.events, "a consistent read")?;
    same(store.read_stream(&a, version(0)?, PageSize::default()).await?.events, "a page of the stream")?;
    same(follow(&store, &EventFilter::all(), PageSize::default(), store.head().await?).await?, "a page of the log")
}

pub(crate) async fn json_comes_back_byte_for_byte(env: &Environment) -> Outcome {
    let texts = [
        r#"{"b":1,"a":2,"B":3}"#,
        r#"{"a":1,"a":2}"#,
        r#"{ "spaced" :	[1 , 2]  }"#,
        "{\n  \"pretty\": true\n}",
        r#"{"big":123456789012345678901234567890,"max":18446744073709551615,"min":-9223372036854775808}"#,
        r#"{"floats":[1.0,1.10,1e2,1E+2,-0.0,0.1000000000000000055511151231257827,1.7976931348623157e308]}"#,
        r#"{"nul":"\u0000","escaped":"\u00e9\/\ud83d\ude42","raw":"é🙂"}"#,
        r#"{"":"empty key","null":null,"nested":{"z":[],"a":{}}}"#,
        r#""only text""#,
        "null",
        "[]",
        "0",
        "{}",
    ];
    come_back(env, texts.map(|text| event_with(HAPPENED, Payload::json(text))).into_iter().collect::<Checked<_>>()?)
        .await
}

pub(crate) async fn binary_comes_back_byte_for_byte(env: &Environment) -> Outcome {
    let all: Vec<u8> = (0..=255).collect();
    let payloads: [Bytes; 5] = [
        Bytes::new(),
        all.into(),
        vec![0; 1_000].into(),
        "{\"no\": \"json}".into(),
        vec![0xff, 0xfe, 0xc3, 0x28].into(),
    ];
    let events = payloads.map(|bytes| event_with(HAPPENED, Payload::new(ContentType::Binary, bytes)));
    come_back(env, events.into_iter().collect::<Checked<_>>()?).await
}

pub(crate) async fn metadata_comes_back(env: &Environment) -> Outcome {
    let text = "tab\t newline\n nul\u{0} quote\" backslash\\ é 🙂";
    let metadata = [
        EventMetadata::empty(),
        EventMetadata::builder().correlation_id(CorrelationId::new("conversation 'é'")?).build()?,
        EventMetadata::builder().causation_id(CausationId::new("cause")?).user_id(UserId::new("alice")?).build()?,
        EventMetadata::builder().value("z", "1").value("a", "2").value("ключ", text).value(text, "").build()?,
        EventMetadata::builder().value("long", "x".repeat(60_000)).build()?,
    ];
    let events = metadata.map(|metadata| checked(NewEvent { metadata, ..happened()? }));
    come_back(env, events.into_iter().collect::<Checked<_>>()?).await
}

pub(crate) async fn types_and_schema_versions_come_back(env: &Environment) -> Outcome {
    let long = "t".repeat(255);
    let events = [
        ("a", 1),
        ("bank.Deposited", 2),
        ("Überweisung 🙂", 7),
        ("a'b\"c\\d", 1_000),
        (long.as_str(), i32::MAX as u32),
    ];
    let events = events.map(|(event_type, version)| {
        checked(NewEvent { schema_version: SchemaVersion::try_new(version)?, ..event(event_type, 0)? })
    });
    come_back(env, events.into_iter().collect::<Checked<_>>()?).await
}

pub(crate) async fn large_payloads_come_back(env: &Environment) -> Outcome {
    let noise: Vec<u8> = (0..900_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let text = format!("{{\"text\":\"{}\"}}", "é".repeat(400_000));
    ensure!(text.len() < 1_000_000, "the text is over the limit");
    come_back(env, vec![event_with(HAPPENED, Payload::binary(noise))?, event_with(HAPPENED, Payload::json(text))?])
        .await
}
