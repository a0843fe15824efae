//! No room left.

use crate::support::{Home, append, event_of, one, stream};
use eventcore::{
    AppendRequest, DeadLetterStore, DecodeError, EncodeError, ErrorKind, Event, EventFilter, EventReader, EventStore,
    EventStoreError, EventType, EventTypeInfo, FailureContext, FailureStrategy, MaxConsecutiveFailures, PageSize,
    Payload, ProjectionConfig, Projector, ReadStreams, RecordedEvent, SchemaVersion, run_projection,
};
use eventcore_sqlite::{SqliteConfig, SqliteContext, SqliteEventStore};
use std::error::Error as StdError;
use std::marker::PhantomData;
use std::time::Duration;

#[tokio::test]
async fn a_full_store_writes_nothing_and_can_be_read() {
    let home = Home::new();
    let store = home.open_with(SqliteConfig::default().max_page_count(60)).await;
    let payload = "x".repeat(5_000);
    let mut written = 0;
    let error = loop {
        match append(&store, "s", &payload).await {
            Ok(_) => written += 1,
            Err(error) => break error,
        }
        assert!(written < 100, "60 pages of 4 KiB hold no 100 events of 5 KB");
    };
    assert!(matches!(error, EventStoreError::StorageFull { .. }), "{error:?}");
    assert!(written > 0);
    assert_eq!(store.head().await.unwrap().unwrap().get(), written);
    let read = store.read_streams(ReadStreams::new([stream("s")]).unwrap()).await.unwrap();
    assert_eq!(read.events.len() as u64, written);
    // It is not poisoned: it says so again, and works as soon as there is room.
    assert!(matches!(append(&store, "s", &payload).await, Err(EventStoreError::StorageFull { .. })));
    store.close().await.unwrap();
    let store = home.open().await;
    assert_eq!(append(&store, "s", &payload).await.unwrap().events[0].position.get(), written + 1);
}

#[tokio::test]
async fn what_does_not_fit_does_not_fail_its_neighbours() {
    let home = Home::new();
    let config = SqliteConfig::default().max_page_count(60);
    let (writer, index, _join) = SqliteEventStore::open_parts(home.path(), config).await.unwrap();
    let large = "x".repeat(500_000);
    let (warm, before, large, after) = tokio::join!(
        writer.append(one("s", "0")),
        writer.append(one("s", "1")),
        writer.append(one("s", &large)),
        writer.append(one("s", "2")),
    );
    warm.unwrap();
    before.unwrap();
    assert!(matches!(large, Err(EventStoreError::StorageFull { .. })));
    after.unwrap();
    let page = index.read_page(&EventFilter::all(), None, PageSize::default()).await.unwrap();
    let versions: Vec<_> = page.events.iter().map(|event| event.version().get()).collect();
    assert_eq!(versions, [1, 2, 3]);
}

#[tokio::test]
async fn what_was_named_first_in_an_append_that_did_not_fit_can_be_named_again() {
    let home = Home::new();
    let store = home.open_with(SqliteConfig::default().max_page_count(60)).await;
    let append = |payload: String| {
        let request = AppendRequest::builder().event(stream("new"), event_of("test.New", payload)).build().unwrap();
        store.append(request)
    };
    assert!(matches!(append("x".repeat(500_000)).await, Err(EventStoreError::StorageFull { .. })));
    append("1".to_owned()).await.unwrap();
    let page = store.read_page(&EventFilter::all(), None, PageSize::default()).await.unwrap();
    let names: Vec<_> = page.events.iter().map(|e| (e.stream_id().as_str(), e.event_type().as_str())).collect();
    assert_eq!(names, [("new", "test.New")]);
}

/// Any event.
struct Happened;

impl Event for Happened {
    fn event_types() -> Vec<EventTypeInfo> {
        Vec::new()
    }
    fn event_type(&self) -> EventType {
        "test.Happened".parse().unwrap()
    }
    fn schema_version(&self) -> SchemaVersion {
        SchemaVersion::default()
    }
    fn encode(&self) -> Result<Payload, EncodeError> {
        Ok(Payload::json("{}"))
    }
    fn decode(_: &EventType, _: SchemaVersion, _: &Payload) -> Result<Self, DecodeError> {
        Ok(Self)
    }
}

/// An error of the application's own that names its cause.
#[derive(Debug, thiserror::Error)]
#[error("the copy could not be written")]
struct NotCopied(#[from] rusqlite::Error);

/// One that passes for its cause: `source` is the cause of that one, so the error of rusqlite is nowhere in the chain.
#[derive(Debug, thiserror::Error)]
enum Transparent {
    #[error(transparent)]
    Sqlite(#[from] rusqlite::Error),
}

/// Writes much for each event, and gives up on events that fail.
struct Copies<E> {
    asked: u32,
    error: PhantomData<fn() -> E>,
}

impl<E> Copies<E> {
    fn new() -> Self {
        Self { asked: 0, error: PhantomData }
    }
}

impl<E: StdError + From<rusqlite::Error> + Send + Sync + 'static> Projector for Copies<E> {
    type Event = Happened;
    type Error = E;
    type Context = SqliteContext;

    fn name(&self) -> &str {
        "copies"
    }

    fn filter(&self) -> EventFilter {
        EventFilter::all()
    }

    async fn apply(&mut self, event: &RecordedEvent<Happened>, page: &mut SqliteContext) -> Result<(), E> {
        let insert = "insert into copies values (?1, zeroblob(100000))";
        page.connection().execute(insert, [event.stream_id().as_str()])?;
        Ok(())
    }

    fn on_error(&mut self, _: &FailureContext<'_, E>) -> FailureStrategy {
        self.asked += 1;
        FailureStrategy::DeadLetter
    }
}

#[tokio::test]
async fn no_event_is_to_blame_for_a_full_disk_however_the_projector_words_it() {
    runs_full::<rusqlite::Error>().await;
    runs_full::<NotCopied>().await;
    runs_full::<Transparent>().await;
}

async fn runs_full<E: StdError + From<rusqlite::Error> + Send + Sync + 'static>() {
    let home = Home::new();
    let store = home.open_with(SqliteConfig::default().max_page_count(80)).await;
    home.raw().execute_batch("create table copies (stream text not null, copy blob not null)").unwrap();
    for name in ["a", "b", "c", "d"] {
        append(&store, name, "1").await.unwrap();
    }
    let twice = MaxConsecutiveFailures::try_new(2).unwrap();
    let config = ProjectionConfig::default().read_failures(twice, Duration::from_millis(1));
    let error = run_projection(Copies::<E>::new(), &store, config.clone()).await.map(drop).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
    assert!(store.dead_letters(None, None, PageSize::default()).await.unwrap().is_empty());
    store.close().await.unwrap();

    // With room for them all have their effect, once.
    let store = home.open().await;
    let outcome = run_projection(Copies::<E>::new(), &store, config.clone()).await.unwrap();
    assert_eq!((outcome.applied, outcome.parked, outcome.projector.asked), (4, 0, 0));
    // What the event itself does wrong is its own.
    home.raw().execute_batch("create unique index once on copies (stream)").unwrap();
    append(&store, "a", "2").await.unwrap();
    let outcome = run_projection(Copies::<E>::new(), &store, config).await.unwrap();
    assert_eq!((outcome.applied, outcome.parked, outcome.projector.asked), (0, 1, 1));
    store.close().await.unwrap();
}
