//! How long appends wait beside an exactly-once projection that catches up, for several hold times of its pages.
//!
//!     cargo run --release -p eventcore-sqlite --example page_hold -- 50000
//!
//! The argument is the number of events that the projection has to catch up with.

use eventcore::{
    AppendRequest, Event, EventId, EventMetadata, EventStore, NewEvent, ProjectionConfig, Projector, RecordedEvent,
    StreamId, run_projection,
};
use eventcore_sqlite::{SqliteConfig, SqliteContext, SqliteEventStore, Synchronous, rusqlite};
use serde::{Deserialize, Serialize};
use std::error::Error;
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

#[derive(Serialize, Deserialize, Event)]
#[event(namespace = "hold")]
enum Happened {
    Counted {},
}

/// Counts events by stream, in a table of the store's file.
struct Tally(String);

impl Projector for Tally {
    type Event = Happened;
    type Error = rusqlite::Error;
    type Context = SqliteContext;

    fn name(&self) -> &str {
        &self.0
    }

    async fn apply(&mut self, event: &RecordedEvent<Happened>, page: &mut SqliteContext) -> rusqlite::Result<()> {
        let count = "insert into tally values (?1, 1) on conflict (stream) do update set n = n + 1";
        page.connection().prepare_cached(count)?.execute([event.stream_id().as_str()]).map(drop)
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let events: usize = std::env::args().nth(1).map_or(Ok(50_000), |events| events.parse())?;
    let directory = tempfile::tempdir()?;
    let path = directory.path().join("hold.db");
    // Without waiting for the disk at every commit, so that what is measured is the wait for the turn.
    let store = SqliteEventStore::open_with(&path, SqliteConfig::default().synchronous(Synchronous::Normal)).await?;
    rusqlite::Connection::open(&path)?.execute_batch("create table tally (stream text primary key, n integer)")?;
    for batch in 0..events.div_ceil(500) {
        let stream = StreamId::new(format!("s-{}", batch % 100))?;
        let mut request = AppendRequest::builder();
        for _ in 0..500 {
            request = request.event(stream.clone(), counted()?);
        }
        store.append(request.build()?).await?;
    }

    println!("{:>12} {:>9} {:>9} {:>9} {:>9} {:>12}", "hold time", "appends", "p50", "p99", "max", "events/s");
    row("no pages", latencies(&store, CancellationToken::new(), Some(Duration::from_secs(2))).await?, None);
    for hold in [5, 10, 50, 200] {
        let done = CancellationToken::new();
        let appending = tokio::spawn({
            let (store, done) = (store.clone(), done.clone());
            async move { latencies(&store, done, None).await.map_err(|error| error.to_string()) }
        });
        let config = ProjectionConfig::default().hold_time(Duration::from_millis(hold));
        let since = Instant::now();
        let outcome = run_projection(Tally(format!("tally-{hold}")), &store, config).await?;
        let rate = outcome.applied as f64 / since.elapsed().as_secs_f64();
        done.cancel();
        row(&format!("{hold} ms"), appending.await??, Some(rate));
    }
    store.close().await?;
    Ok(())
}

/// Appends one event after the other, with a pause in between, and tells how long each took.
async fn latencies(
    store: &SqliteEventStore,
    done: CancellationToken,
    time: Option<Duration>,
) -> Result<Vec<Duration>, Box<dyn Error>> {
    let stream = StreamId::new("appender")?;
    let (began, mut latencies) = (Instant::now(), Vec::new());
    while !done.is_cancelled() && time.is_none_or(|time| began.elapsed() < time) {
        let request = AppendRequest::builder().event(stream.clone(), counted()?).build()?;
        let since = Instant::now();
        store.append(request).await?;
        latencies.push(since.elapsed());
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    Ok(latencies)
}

fn row(name: &str, mut latencies: Vec<Duration>, rate: Option<f64>) {
    latencies.sort();
    let at = |share: f64| {
        let index = (latencies.len() as f64 * share) as usize;
        latencies.get(index.min(latencies.len().saturating_sub(1))).map_or(0.0, Duration::as_secs_f64) * 1_000.0
    };
    let rate = rate.map_or_else(String::new, |rate| format!("{rate:.0}"));
    let (p50, p99, max) = (at(0.5), at(0.99), at(1.0));
    println!("{name:>12} {:>9} {p50:>6.2} ms {p99:>6.2} ms {max:>6.2} ms {rate:>12}", latencies.len());
}

fn counted() -> Result<NewEvent, Box<dyn Error>> {
    Ok(NewEvent::encode(EventId::generate(), &Happened::Counted {}, EventMetadata::empty())?)
}
