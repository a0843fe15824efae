//! While a checkpoint is saved, the events of the next page are decoded.

use crate::troubled_store::{Held, TroubledStore};
use eventcore::{
    AppendRequest, Event, EventId, EventMetadata, EventStore, NewEvent, PageSize, Payload, ProjectionConfig,
    ProjectionError, Projector, RecordedEvent, StreamId, run_projection,
};
use serde::{Deserialize, Deserializer, Serialize};
use std::cell::{Cell, RefCell};
use std::sync::Arc;

#[derive(Serialize, Deserialize, Event)]
#[event(namespace = "ahead")]
enum Happened {
    Once { number: Watched },
}

/// Whoever decodes this number panics.
const PANICS: u64 = u64::MAX;

/// Notes when it is decoded.
#[derive(Serialize)]
struct Watched(u64);

thread_local! {
    static SAVING: RefCell<Arc<Held>> = RefCell::default();
    static DECODED: Cell<u64> = const { Cell::new(0) };
    static DECODED_MEANWHILE: Cell<u64> = const { Cell::new(0) };
}

impl<'de> Deserialize<'de> for Watched {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let number = u64::deserialize(deserializer)?;
        assert!(number != PANICS, "on purpose");
        DECODED.set(DECODED.get() + 1);
        let meanwhile = SAVING.with_borrow(|saving| saving.now() > 0);
        DECODED_MEANWHILE.set(DECODED_MEANWHILE.get() + u64::from(meanwhile));
        Ok(Self(number))
    }
}

/// Wants its events in order, and has effects of its own.
#[derive(Default)]
struct InOrder(u64);

impl Projector for InOrder {
    type Event = Happened;
    type Error = std::convert::Infallible;
    type Context = ();

    fn name(&self) -> &str {
        "in-order"
    }

    async fn apply(&mut self, event: &RecordedEvent<Happened>, (): &mut ()) -> Result<(), Self::Error> {
        self.0 += 1;
        let Happened::Once { number } = event.payload();
        assert_eq!((number.0, event.position().get()), (self.0, self.0));
        assert!(SAVING.with_borrow(|saving| saving.now() == 0), "applied before the checkpoint was saved");
        Ok(())
    }
}

/// Three hundred events, in pages of a hundred.
async fn three_pages(payload: impl Fn(u64) -> String) -> (TroubledStore, ProjectionConfig) {
    let store = TroubledStore::default();
    SAVING.set(Arc::clone(&store.saving));
    let request = (1..=300).fold(AppendRequest::builder(), |request, number| {
        let event = NewEvent {
            id: EventId::generate(),
            event_type: "ahead.Once".parse().unwrap(),
            schema_version: eventcore::SchemaVersion::default(),
            payload: Payload::json(payload(number)),
            metadata: EventMetadata::empty(),
        };
        request.event(StreamId::new("s").unwrap(), event)
    });
    store.append(request.build().unwrap()).await.unwrap();
    (store, ProjectionConfig::default().page_size(PageSize::try_new(100).unwrap()))
}

fn number(number: u64) -> String {
    format!(r#"{{"number":{number}}}"#)
}

#[tokio::test]
async fn the_time_of_a_checkpoint_is_used_to_decode_the_next_page() {
    let (store, config) = three_pages(number).await;
    store.save_slowly();
    let outcome = run_projection(InOrder::default(), &store, config).await.unwrap();
    assert_eq!((outcome.projector.0, outcome.applied), (300, 300));
    assert_eq!(store.saved(), [100, 200, 300]);
    assert_eq!(DECODED_MEANWHILE.get(), 200, "all but the first page");
    assert_eq!(DECODED.get(), 300, "each event once");
}

#[tokio::test]
async fn a_checkpoint_that_is_saved_at_once_leaves_decoding_to_its_time() {
    let (store, config) = three_pages(number).await;
    run_projection(InOrder::default(), &store, config).await.unwrap();
    assert_eq!((DECODED.get(), DECODED_MEANWHILE.get()), (300, 0));
}

#[tokio::test]
async fn an_event_that_cannot_be_decoded_fails_when_it_is_its_turn() {
    let (store, config) = three_pages(|at| if at == 150 { "{}".to_owned() } else { number(at) }).await;
    store.save_slowly();
    let error = run_projection(InOrder::default(), &store, config).await.map(|_| ()).unwrap_err();
    assert!(matches!(error, ProjectionError::Decode { position, .. } if position.get() == 150), "{error:?}");
    assert_eq!(store.saved().first(), Some(&100), "the page before it is done");
    assert_eq!(store.saved().last(), Some(&149), "and everything before it");
}

#[tokio::test]
async fn who_panics_while_decoding_ahead_takes_no_checkpoint_along() {
    let (store, config) = three_pages(|at| number(if at == 150 { PANICS } else { at })).await;
    store.save_slowly();
    let log = store.clone();
    let run = tokio::spawn(async move { run_projection(InOrder::default(), &log, config).await.map(|_| ()) });
    assert!(run.await.unwrap_err().is_panic(), "it panics when it is its turn");
    assert_eq!(store.saved(), [100], "the page before it is done");
}
