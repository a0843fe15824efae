//! What filters want, and names that only look alike.

use crate::Environment;
use crate::fixtures::*;
use crate::harness::OpenStore;
use crate::violation::{ensure, ensure_eq};
use eventcore::{EventFilter, EventReader, EventStore, ExpectedVersion, StreamCategory, StreamId, StreamPrefix};
use std::collections::BTreeSet;

/// Names that a careless comparison takes for each other.
fn lookalikes() -> Checked<Vec<StreamId>> {
    let long = "x".repeat(254);
    let umlauts = "ü".repeat(255);
    let names = [
        "account_1",
        "account-1",
        "accountX1",
        "Account_1",
        "ACCOUNT_1",
        "account_",
        "account",
        "account_10",
        "acc%",
        "acc%1",
        "accX1",
        "a*",
        "a?",
        "ab",
        "[ab]",
        "a\\",
        "a\\_b",
        "a'b",
        "a\"b",
        "a;b",
        "caf\u{e9}",
        "cafe\u{301}",
        "straße",
        "strasse",
        "\u{10ffff}",
        "\u{10ffff}x",
        "\u{ffff}",
        "日本",
        "日本語",
        "emoji 🙂",
        "İ",
        "i",
        "ı",
        "I",
        "0",
        "00",
        "a b",
        "a  b",
    ];
    let long = [format!("{long}a"), format!("{long}A"), format!("{long}_"), format!("{long}%"), umlauts];
    names.into_iter().map(stream).chain(long.iter().map(|s| stream(s))).collect()
}

/// A store with one event in each stream.
async fn one_event_each(env: &Environment, names: &[StreamId]) -> Checked<OpenStore> {
    let store = env.fresh().await?;
    let events = names.iter().zip(0..).map(|(s, n)| Ok((s, event(HAPPENED, n)?))).collect::<Checked<_>>()?;
    store.append(request(&[], events)?).await?;
    Ok(store)
}

/// The streams whose events a filter wants.
async fn wanted(store: &OpenStore, filter: &EventFilter) -> Checked<BTreeSet<StreamId>> {
    let events = follow(store, filter, page_size(7)?, store.head().await?).await?;
    Ok(events.iter().map(|e| e.stream_id().clone()).collect())
}

pub(crate) async fn names_that_look_alike_are_streams_of_their_own(env: &Environment) -> Outcome {
    let names = lookalikes()?;
    let store = one_event_each(env, &names).await?;
    for (name, n) in names.iter().zip(0_i64..) {
        let read = read(&store, &[name]).await?;
        ensure_eq!((read.events.len(), read.versions[0].get()), (1, 1), "events and version of stream {name:?}");
        ensure_eq!(number_in(&read.events[0])?, n, "event of stream {name:?}");
        ensure_eq!(read.events[0].stream_id(), name, "name of the stream");
        let page = store.read_stream(name, version(0)?, page_size(10)?).await?;
        ensure_eq!(page.events, read.events, "page of stream {name:?}");
        let second = append(&store, name, exactly(1)?, 1).await?;
        ensure_eq!(second.events[0].version.get(), 2, "version of the second event of stream {name:?}");
    }
    Ok(())
}

pub(crate) async fn prefixes_are_taken_literally(env: &Environment) -> Outcome {
    let names = lookalikes()?;
    let store = one_event_each(env, &names).await?;
    let prefixes = [
        "account_",
        "account",
        "a",
        "A",
        "acc%",
        "acc%1",
        "a*",
        "a\\",
        "a'",
        "[",
        "caf",
        "caf\u{e9}",
        "cafe",
        "\u{10ffff}",
        "\u{ffff}",
        "日",
        "日本語",
        "emoji 🙂",
        "i",
        "ı",
        "nothing begins so",
    ];
    for prefix in prefixes {
        let filter = EventFilter::all().stream_prefix(StreamPrefix::new(prefix)?);
        let expected: BTreeSet<_> = names.iter().filter(|s| s.as_str().starts_with(prefix)).cloned().collect();
        ensure_eq!(wanted(&store, &filter).await?, expected, "streams that begin with {prefix:?}");
    }
    Ok(())
}

pub(crate) async fn categories_are_taken_literally(env: &Environment) -> Outcome {
    let names = [
        "account-1",
        "account-",
        "account-1-2",
        "account--1",
        "account",
        "accounts-1",
        "account_-1",
        "account%-1",
        "accountX-1",
        "Account-1",
        "acc-ount-1",
        "-account-1",
        "-",
        "a-1",
        "日本-1",
        "日本語-1",
    ];
    let names: Vec<_> = names.into_iter().map(stream).collect::<Checked<_>>()?;
    let store = one_event_each(env, &names).await?;
    for category in ["account", "account_", "account%", "Account", "acc", "a", "日本", "nothing"] {
        let filter = EventFilter::all().category(StreamCategory::new(category)?);
        let expected: BTreeSet<_> = names.iter().filter(|s| s.category() == Some(category)).cloned().collect();
        ensure_eq!(wanted(&store, &filter).await?, expected, "streams of category {category:?}");
    }
    Ok(())
}

pub(crate) async fn exact_streams_are_taken_exactly(env: &Environment) -> Outcome {
    let names = lookalikes()?;
    let store = one_event_each(env, &names).await?;
    for name in &names {
        let seen = wanted(&store, &EventFilter::all().streams([name.clone()])).await?;
        ensure_eq!(seen, BTreeSet::from([name.clone()]), "streams called {name:?}");
    }
    let several: BTreeSet<_> = names.iter().step_by(3).cloned().collect();
    let unknown = stream("unknown")?;
    let seen = wanted(&store, &EventFilter::all().streams(several.iter().cloned().chain([unknown]))).await?;
    ensure_eq!(seen, several, "several streams, one of them unknown");
    Ok(())
}

pub(crate) async fn types_are_taken_exactly(env: &Environment) -> Outcome {
    let store = env.fresh().await?;
    let a = stream("a")?;
    let long = "t".repeat(255);
    let types = ["bank.Deposited", "bank.deposited", "bank.Deposited2", "bank_Deposited", "bank%", "Überwiesen", &long];
    let events = types.iter().map(|t| Ok((&a, event(t, 0)?))).collect::<Checked<_>>()?;
    store.append(request(&[], events)?).await?;
    let head = store.head().await?;
    for event_type in types {
        let filter = EventFilter::all().types([event_type.parse()?]);
        let seen = follow(&store, &filter, page_size(2)?, head).await?;
        let seen: Vec<_> = seen.iter().map(|e| e.event_type().as_str()).collect();
        ensure_eq!(seen, [event_type], "events of type {event_type:?}");
    }
    let two = EventFilter::all().types([types[0].parse()?, types[3].parse()?, "bank.Never".parse()?]);
    ensure_eq!(follow(&store, &two, page_size(2)?, head).await?.len(), 2, "events of two types");
    Ok(())
}

pub(crate) async fn type_and_stream_have_to_fit_both(env: &Environment) -> Outcome {
    let store = env.fresh().await?;
    let names = streams(&["a-1", "a-2", "b-1"])?;
    for name in &names {
        for event_type in ["test.One", "test.Two"] {
            store.append(request(&[], vec![(name, event(event_type, 0)?)])?).await?;
        }
    }
    let head = store.head().await?;
    let one = EventFilter::all().types(["test.One".parse()?]);
    let exact = follow(&store, &one.clone().streams([names[2].clone()]), page_size(1)?, head).await?;
    ensure_eq!(exact.len(), 1, "events of one type in one stream");
    ensure!(exact[0].stream_id() == &names[2] && exact[0].event_type().as_str() == "test.One", "another event");
    let prefix = follow(&store, &one.stream_prefix(StreamPrefix::new("a-")?), page_size(1)?, head).await?;
    ensure_eq!(prefix.len(), 2, "events of one type in streams with one prefix");
    Ok(())
}

pub(crate) async fn a_filter_of_no_streams_or_types_wants_nothing(env: &Environment) -> Outcome {
    let store = env.fresh().await?;
    append(&store, &stream("a")?, ExpectedVersion::Any, 3).await?;
    for filter in [EventFilter::all().streams([]), EventFilter::all().types([])] {
        ensure_eq!(wanted(&store, &filter).await?.len(), 0, "streams wanted by {filter:?}");
    }
    Ok(())
}
