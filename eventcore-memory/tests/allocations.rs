//! How often a command allocates, and what a stored event takes: counted, so that neither grows unnoticed.
// The lints allow these inside of test functions only; helpers of tests are meant as well.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic)]

use allocation_counter::{AllocationInfo, measure};
use eventcore::{
    AppendRequest, Command, CommandExecutor, CommandLogic, Event, EventId, EventMetadata, EventStore, ExpectedVersion,
    NewEvent, NewEvents, RecordedEvent, StreamId,
};
use eventcore_memory::MemoryEventStore;
use serde::{Deserialize, Serialize};
use std::convert::Infallible;
use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

/// The most allocations of a command, also on a stream of one event.
const PER_COMMAND: u64 = 17;
/// The most bytes that a stored event takes beyond its payload, whatever that one's size.
const PER_EVENT: i64 = 180;

#[derive(Debug, Serialize, Deserialize, Event)]
#[event(namespace = "ledger")]
enum LedgerEvent {
    Deposited { amount: i64, text: String },
}

/// About 180 bytes of JSON.
fn deposited() -> LedgerEvent {
    LedgerEvent::Deposited { amount: 1, text: "a standing order, paid on the first day ".repeat(4) }
}

#[derive(Command)]
struct Deposit {
    #[stream]
    account: StreamId,
}

impl CommandLogic for Deposit {
    type Event = LedgerEvent;
    type State = i64;
    type Error = Infallible;

    fn apply(&self, balance: &mut i64, event: &RecordedEvent<LedgerEvent>) {
        let LedgerEvent::Deposited { amount, .. } = event.payload();
        *balance += amount;
    }

    fn handle(&self, _: &i64, streams: &DepositStreams) -> Result<NewEvents<Self>, Infallible> {
        Ok(NewEvents::new().append(&streams.account, deposited()))
    }
}

fn account(number: u32) -> StreamId {
    StreamId::new(format!("account-{number:07}")).unwrap()
}

/// The store in memory never waits, so a future of it is ready at once, and no runtime allocates beside it.
fn now<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(ready) => ready,
        Poll::Pending => panic!("the store in memory waits"),
    }
}

fn of_one_command(executor: &CommandExecutor<MemoryEventStore>, account: StreamId) -> AllocationInfo {
    measure(|| {
        now(executor.execute(Deposit { account: account.clone() })).unwrap();
    })
}

#[test]
fn a_command_allocates_seldom() {
    let executor = CommandExecutor::new(MemoryEventStore::new());
    // Tables that have grown to their size, and what is made once.
    for number in 0..1_000 {
        of_one_command(&executor, account(number));
    }
    // The middle of many: now and then a table grows.
    let median = |first: u32| {
        let mut counts: Vec<u64> =
            (first..first + 101).map(|number| of_one_command(&executor, account(number)).count_total).collect();
        counts.sort_unstable();
        counts[50]
    };
    let (empty, one) = (median(1_000), median(1_000));
    println!("allocations per single-stream command: {empty} on an empty stream, {one} on a stream of one event");
    assert!(empty <= PER_COMMAND, "{empty} allocations, {PER_COMMAND} are allowed");
    assert!(one <= PER_COMMAND, "{one} allocations on a stream of one event, {PER_COMMAND} are allowed");
}

#[test]
fn a_stored_event_takes_little_more_than_its_payload() {
    for event in [deposited(), LedgerEvent::Deposited { amount: 1, text: String::new() }] {
        let payload = event.encode().unwrap().bytes().len() as i64;
        let each = taken_by(&event) - payload;
        println!("bytes of overhead per stored event: {each} beside a payload of {payload}");
        assert!((1..=PER_EVENT).contains(&each), "{each} bytes, {PER_EVENT} are allowed");
    }
}

/// How many bytes one of many events takes.
fn taken_by(event: &LedgerEvent) -> i64 {
    const EVENTS: u32 = 23_640;
    // Ten events of each stream, as the benchmark has at most.
    let store = MemoryEventStore::new();
    let taken = measure(|| {
        for number in 0..EVENTS {
            let stream = account(number % (EVENTS / 10));
            let new = NewEvent::encode(EventId::generate(), event, EventMetadata::empty()).unwrap();
            let request = AppendRequest::builder().expect(stream.clone(), ExpectedVersion::Any).event(stream, new);
            now(store.append(request.build().unwrap())).unwrap();
        }
    });
    taken.bytes_current / i64::from(EVENTS)
}
