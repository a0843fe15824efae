//! Many commands on few streams: nobody decides in vain for ever, and nobody waits for ever.

use async_trait::async_trait;
use eventcore::{
    AppendRequest, Appended, Command, CommandExecutor, CommandLogic, Event, EventStore, EventStoreError,
    GlobalPosition, MaxAttempts, NewEvents, ReadStreams, RecordedEvent, RetryPolicy, StreamId, StreamVersion,
    StreamsRead, Timestamp,
};
use eventcore_memory::MemoryEventStore;
use serde::{Deserialize, Serialize};
use std::convert::Infallible;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

/// A store that takes its time, which is virtual here, so that others get in between.
#[derive(Clone, Default)]
struct BusyStore(MemoryEventStore);

const LATENCY: Duration = Duration::from_millis(5);

#[async_trait]
impl EventStore for BusyStore {
    async fn append(&self, request: AppendRequest) -> Result<Appended, EventStoreError> {
        sleep(LATENCY).await;
        self.0.append(request).await
    }
    async fn read_streams(&self, request: ReadStreams) -> Result<StreamsRead, EventStoreError> {
        let read = self.0.read_streams(request).await;
        sleep(LATENCY).await;
        read
    }
    async fn stream_version(&self, stream_id: &StreamId) -> Result<StreamVersion, EventStoreError> {
        self.0.stream_version(stream_id).await
    }
    async fn head(&self) -> Result<Option<GlobalPosition>, EventStoreError> {
        self.0.head().await
    }
    async fn prune_receipts(&self, older_than: Timestamp) -> Result<u64, EventStoreError> {
        self.0.prune_receipts(older_than).await
    }
    async fn close(&self) -> Result<(), EventStoreError> {
        self.0.close().await
    }
}

#[derive(Debug, Serialize, Deserialize, Event)]
#[event(namespace = "test")]
enum Counting {
    Counted { number: u64 },
}

/// Counts on all of its streams.
#[derive(Command)]
struct Count {
    #[stream]
    streams: Vec<StreamId>,
}

impl CommandLogic for Count {
    type Event = Counting;
    type State = u64;
    type Error = Infallible;

    fn apply(&self, state: &mut u64, _event: &RecordedEvent<Counting>) {
        *state += 1;
    }

    fn handle(&self, state: &u64, streams: &CountStreams) -> Result<NewEvents<Self>, Infallible> {
        let count = |events: NewEvents<Self>, stream| events.append(stream, Counting::Counted { number: *state });
        Ok(streams.streams.iter().fold(NewEvents::new(), count))
    }
}

const CALLERS: usize = 16;
const COMMANDS: usize = 25;

/// Runs commands from many callers, and tells how often they decided in all.
async fn run(executor: &CommandExecutor<BusyStore>, streams_of: fn(usize) -> Vec<StreamId>) -> u32 {
    let mut callers = JoinSet::new();
    for caller in 0..CALLERS {
        let executor = executor.clone();
        callers.spawn(async move {
            let mut attempts = 0;
            for number in 0..COMMANDS {
                let streams = streams_of(caller + number);
                attempts += executor.execute(Count { streams }).await.unwrap().attempts();
            }
            attempts
        });
    }
    // Virtual time: it passes only when everybody waits.
    let all = timeout(Duration::from_secs(3_600), callers.join_all());
    all.await.expect("callers wait for each other").into_iter().sum()
}

fn stream(name: &str) -> StreamId {
    StreamId::new(name).unwrap()
}

#[tokio::test(start_paused = true)]
async fn commands_on_one_stream_take_turns() {
    let executor = CommandExecutor::new(BusyStore::default());
    let attempts = run(&executor, |_| vec![stream("hot")]).await;
    let commands = (CALLERS * COMMANDS) as u32;
    assert_eq!(executor.store().stream_version(&stream("hot")).await.unwrap().get(), u64::from(commands));
    assert!(attempts < commands * 3 / 2, "{attempts} decisions for {commands} commands");
}

#[tokio::test(start_paused = true)]
async fn commands_on_several_hot_streams_do_not_wait_for_each_other_in_a_ring() {
    let retry = RetryPolicy::default().max_attempts(MaxAttempts::try_new(1_000).unwrap());
    let executor = CommandExecutor::new(BusyStore::default()).retry(retry);
    let pairs = |number: usize| {
        let names = ["a", "b", "c"];
        vec![stream(names[number % 3]), stream(names[(number + 1 + number / 3 % 2) % 3])]
    };
    run(&executor, pairs).await;
    let mut counted = 0;
    for name in ["a", "b", "c"] {
        counted += executor.store().stream_version(&stream(name)).await.unwrap().get();
    }
    assert_eq!(counted, 2 * (CALLERS * COMMANDS) as u64);
}

#[tokio::test(start_paused = true)]
async fn a_command_that_its_caller_does_not_poll_holds_up_nobody_for_ever() {
    let executor = CommandExecutor::new(BusyStore::default()).retry(RetryPolicy::default().cap(Duration::ZERO));
    let count = || Box::pin(executor.execute(Count { streams: vec![stream("hot")] }));
    let (mut left_alone, mut other) = (count(), count());
    // Both begin to read before either appends, so one of them conflicts and queues up.
    assert!(timeout(Duration::ZERO, &mut left_alone).await.is_err());
    assert!(timeout(Duration::ZERO, &mut other).await.is_err());
    other.await.unwrap();
    // It finds the conflict, and is left while it reads again: it is its turn.
    assert!(timeout(LATENCY + LATENCY / 2, &mut left_alone).await.is_err());

    let third = timeout(Duration::from_secs(3_600), count()).await;
    third.expect("it waits for a command that nobody polls").unwrap();
    assert_eq!(left_alone.await.unwrap().attempts(), 3, "it was to have its turn when the third came");
    assert_eq!(executor.store().stream_version(&stream("hot")).await.unwrap().get(), 3);
}
