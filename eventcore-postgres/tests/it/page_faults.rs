//! What happens to exactly-once pages when the way to the server is cut.

use crate::fixtures::{Counted, Log, PATIENCE, append_to, stream};
use crate::lost_answers::proxied;
use crate::pages::Tally;
use eventcore::{
    DeadLetterStore, EventStore, ExpectedVersion, FailureContext, FailureStrategy, MaxConsecutiveFailures, PageSize,
    ProjectionConfig, Projector, RecordedEvent, run_projection,
};
use eventcore_postgres::{PgContext, PostgresConfig, PostgresEventStore};
use sqlx::AssertSqlSafe;
use std::error::Error as StdError;
use std::marker::PhantomData;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// An error of the application's own that names its cause.
#[derive(Debug, thiserror::Error)]
#[error("the tally was not written")]
struct NotCounted(#[from] sqlx::Error);

/// One that passes for its cause: `source` is the cause of that one, so the error of sqlx is nowhere in the chain.
#[derive(Debug, thiserror::Error)]
enum Transparent {
    #[error(transparent)]
    Sql(#[from] sqlx::Error),
}

/// Counts events in the store's database; gives up on those that fail, which only those of the stream `poison` should.
struct GivesUp<E> {
    tally: Tally,
    /// What the server says in place of the next answers, as codes.
    faults: Vec<&'static str>,
    /// How many events that did nothing wrong were said to have failed.
    blamed: Arc<AtomicU32>,
    error: PhantomData<fn() -> E>,
}

impl<E: StdError + From<sqlx::Error> + Send + Sync + 'static> Projector for GivesUp<E> {
    type Event = Counted;
    type Error = E;
    type Context = PgContext;

    fn name(&self) -> &str {
        "tally"
    }

    async fn apply(&mut self, event: &RecordedEvent<Counted>, page: &mut PgContext) -> Result<(), E> {
        self.tally.apply(event, page).await?;
        if let Some(code) = self.faults.pop() {
            let raise = format!("do $$ begin raise exception 'a fault' using errcode = '{code}'; end $$");
            sqlx::query(AssertSqlSafe(raise)).execute(page.connection()).await?;
        }
        if event.stream_id().as_str() == "poison" {
            sqlx::query("select 1 / 0").execute(page.connection()).await?;
        }
        Ok(())
    }

    fn on_error(&mut self, failure: &FailureContext<'_, E>) -> FailureStrategy {
        if failure.event.stream_id.as_str() != "poison" {
            self.blamed.fetch_add(1, Ordering::SeqCst);
        }
        FailureStrategy::DeadLetter
    }
}

/// Streams but for `poison` whose events were not counted once each.
const WRONG: &str = "select count(*) from (select stream, count(*) n from @.events where stream <> 'poison' group by stream) e \
     full join @.tally t using (stream) where e.n is distinct from t.n";

fn impatient(config: PostgresConfig) -> PostgresConfig {
    config.page_answer_timeout(Duration::from_secs(1)).page_idle_timeout(Duration::from_secs(2))
}

/// Runs the projection over a log with one poisonous event, and asserts that every other one has had its effect once.
async fn counts_right<E>(log: &Log, store: &PostgresEventStore, faults: &[&'static str], when: &str)
where
    E: StdError + From<sqlx::Error> + Send + Sync + 'static,
{
    let blamed = Arc::new(AtomicU32::new(0));
    let tally = Tally::of(&log.schema);
    let projector = GivesUp::<E> { tally, faults: faults.to_vec(), blamed: Arc::clone(&blamed), error: PhantomData };
    let many = MaxConsecutiveFailures::try_new(1_000).unwrap();
    let config = ProjectionConfig::default().wait_for_leadership().read_failures(many, Duration::from_millis(20));
    let run = run_projection(projector, store, config);
    tokio::time::timeout(PATIENCE, run).await.unwrap_or_else(|_| panic!("it hangs, {when}")).unwrap();
    assert_eq!(log.number(WRONG).await, 0, "{when}");
    let letters = store.dead_letters(None, None, PageSize::default()).await.unwrap();
    let streams: Vec<_> = letters.iter().map(|letter| letter.stream_id.as_str()).collect();
    assert_eq!((streams, blamed.load(Ordering::SeqCst)), (vec!["poison"], 0), "{when}");
}

#[tokio::test]
async fn a_page_whose_connection_falls_silent_is_given_up_and_comes_again() {
    // Each statement of the store itself that is part of a page; the third one parks a dead letter.
    let park = "values ($1, $2, $3, $4, $5, $6, $7, clock_timestamp())";
    for silent in ["begin_page", "save_checkpoint", park, "ROLLBACK", "COMMIT"] {
        let (log, proxy, config, url) = proxied().await;
        let store = PostgresEventStore::connect(&url, impatient(config)).await.unwrap();
        log.run(Tally::TABLE).await.unwrap();
        for name in ["a", "b", "poison", "a"] {
            store.append(append_to(&stream(name), ExpectedVersion::Any)).await.unwrap();
        }
        proxy.silence_after(silent);
        counts_right::<Transparent>(&log, &store, &[], silent).await;
        assert!(proxy.has_lost(), "{silent} was not sent");
        store.close().await.unwrap();
        log.remove().await.unwrap();
    }
}

async fn loses_the_connection_within_apply<E>()
where
    E: StdError + From<sqlx::Error> + Send + Sync + 'static,
{
    let (log, proxy, config, url) = proxied().await;
    let store = PostgresEventStore::connect(&url, impatient(config)).await.unwrap();
    log.run(Tally::TABLE).await.unwrap();
    for name in ["a", "poison", "b", "a"] {
        store.append(append_to(&stream(name), ExpectedVersion::Any)).await.unwrap();
    }
    proxy.lose_answer_to(".tally");
    counts_right::<E>(&log, &store, &[], std::any::type_name::<E>()).await;
    assert!(proxy.has_lost());
    store.close().await.unwrap();
    log.remove().await.unwrap();
}

#[tokio::test]
async fn no_event_is_to_blame_for_a_connection_that_is_lost_while_it_is_applied() {
    loses_the_connection_within_apply::<sqlx::Error>().await;
    loses_the_connection_within_apply::<NotCounted>().await;
    loses_the_connection_within_apply::<Transparent>().await;
}

async fn fails_within_apply<E>()
where
    E: StdError + From<sqlx::Error> + Send + Sync + 'static,
{
    let log = Log::new().unwrap();
    let store = log.open().await.unwrap();
    log.run(Tally::TABLE).await.unwrap();
    for name in ["a", "poison", "b", "a"] {
        store.append(append_to(&stream(name), ExpectedVersion::Any)).await.unwrap();
    }
    let faults = ["40P01", "40001", "53100", "53200"];
    counts_right::<E>(&log, &store, &faults, std::any::type_name::<E>()).await;
    store.close().await.unwrap();
    log.remove().await.unwrap();
}

#[tokio::test]
async fn no_event_is_to_blame_for_what_befalls_the_server_however_the_projector_words_it() {
    fails_within_apply::<sqlx::Error>().await;
    fails_within_apply::<NotCounted>().await;
    fails_within_apply::<Transparent>().await;
}
