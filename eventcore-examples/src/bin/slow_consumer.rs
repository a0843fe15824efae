//! What a slow consumer costs: memory, and the writers' pace.
//!
//!     cargo run --release -p eventcore-examples --bin slow-consumer -- memory
//!     cargo run --release -p eventcore-examples --bin slow-consumer -- sqlite:/tmp/slow.db 100000
//!
//! Appends events (100,000 by default) twice, each time in a process of its own: once alone, and once beside a subscription
//! and a projection that take a millisecond for every event. Prints the rate of the appends, how far the consumers came, and
//! the most memory that the process held.

use eventcore::{
    AppendRequest, Backend, Event, EventFilter, EventId, EventMetadata, FeedItem, GlobalPosition, InMemory, NewEvent,
    Progress, ProjectionConfig, Projector, RecordedEvent, StartFrom, StreamId, run_projection, subscribe,
};
use eventcore_examples::{StoreUrl, connect};
use serde::{Deserialize, Serialize};
use std::error::Error;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// How many callers append at once.
const CALLERS: u64 = 32;

#[derive(Serialize, Deserialize, Event)]
#[event(namespace = "slow")]
enum Happened {
    Noted { text: String },
}

/// Takes its time with every event.
struct Slow;

impl Projector for Slow {
    type Event = Happened;
    type Error = std::convert::Infallible;
    type Context = InMemory;

    fn name(&self) -> &str {
        "slow"
    }

    async fn apply(&mut self, _: &RecordedEvent<Happened>, _: &mut InMemory) -> Result<(), Self::Error> {
        tokio::time::sleep(Duration::from_millis(1)).await;
        Ok(())
    }
}

type Failure = Box<dyn Error + Send + Sync>;

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let usage = "usage: slow-consumer STORE [EVENTS], for example memory, sqlite:PATH or postgres://..";
    let url: StoreUrl = arguments.first().ok_or(usage)?.parse()?;
    let events: u64 = arguments.get(1).map_or(Ok(100_000), |events| events.parse())?;
    match arguments.get(2).map(String::as_str) {
        None => {
            println!("{events} events to {url}");
            for consumers in ["alone", "beside slow consumers"] {
                let program = std::env::current_exe()?;
                let status = Command::new(program).args([&arguments[0], &events.to_string(), consumers]).status()?;
                if !status.success() {
                    return Err(format!("{consumers}: {status}").into());
                }
            }
            Ok(())
        }
        Some(consumers) => run(&url, events, consumers).await,
    }
}

async fn run(url: &StoreUrl, events: u64, consumers: &str) -> Result<(), Failure> {
    let store = connect(url).await?;
    let from = store.head().await?;
    let stop = CancellationToken::new();
    let mut running = Vec::new();
    let (subscribed, projected) = (Progress::default(), Progress::default());
    if consumers != "alone" {
        running.push(tokio::spawn(follow(Arc::clone(&store), from, subscribed.clone(), stop.clone())));
        let config = ProjectionConfig::default().continuous().shutdown(stop.clone()).progress(projected.clone());
        running.push(tokio::spawn({
            let store = Arc::clone(&store);
            async move { Ok(run_projection(Slow, &store, config).await.map(drop)?) }
        }));
    }
    let since = Instant::now();
    let callers: Vec<_> =
        (0..CALLERS).map(|caller| tokio::spawn(append(Arc::clone(&store), caller, events / CALLERS))).collect();
    for caller in callers {
        caller.await??;
    }
    let rate = (events / CALLERS * CALLERS) as f64 / since.elapsed().as_secs_f64();
    let came = |progress: &Progress| progress.position().map_or(0, GlobalPosition::get);
    let (subscribed, projected) = (came(&subscribed), came(&projected));
    stop.cancel();
    for consumer in running {
        consumer.await??;
    }
    store.close().await?;
    print!("{consumers:>22}: {rate:>8.0} appends/s, at most {:>4} MiB resident", peak_mib()?);
    println!(", subscription came to {subscribed}, projection to {projected}");
    Ok(())
}

async fn append(store: Arc<dyn Backend>, caller: u64, events: u64) -> Result<(), Failure> {
    let stream = StreamId::new(format!("caller-{caller}"))?;
    for _ in 0..events {
        let happened = Happened::Noted { text: "x".repeat(200) };
        let event = NewEvent::encode(EventId::generate(), &happened, EventMetadata::empty())?;
        store.append(AppendRequest::builder().event(stream.clone(), event).build()?).await?;
    }
    Ok(())
}

async fn follow(
    store: Arc<dyn Backend>,
    from: Option<GlobalPosition>,
    progress: Progress,
    stop: CancellationToken,
) -> Result<(), Failure> {
    let from = from.map_or(StartFrom::Beginning, StartFrom::After);
    let mut feed = subscribe(store, EventFilter::all(), from);
    while let Some(item) = stop.run_until_cancelled(feed.next()).await {
        if let FeedItem::Event(event) = item? {
            tokio::time::sleep(Duration::from_millis(1)).await;
            progress.advance(event.position());
        }
    }
    Ok(())
}

/// The most memory that this process has held so far, as Linux counts it.
fn peak_mib() -> Result<u64, Failure> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).ok_or("no VmHWM in /proc/self/status")?;
    let kib: u64 = line.trim().trim_end_matches("kB").trim().parse()?;
    Ok(kib / 1024)
}
