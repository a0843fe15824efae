//! What the parts without I/O cost: encoding and decoding, the decision machine, folding, matching a filter.
//!
//!     cargo bench -p eventcore --bench pure
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use eventcore::{
    Appended, AppendedEvent, Command, CommandContext, CommandLogic, DecisionStep, Entropy, Event, EventFilter,
    EventHeader, EventId, EventMetadata, GlobalPosition, NewEvents, RecordedEvent, RetryPolicy, StreamId, StreamPrefix,
    StreamVersion, StreamsRead, Timestamp, decide,
};
use serde::{Deserialize, Serialize};
use std::convert::Infallible;
use std::hint::black_box;

#[derive(Debug, Clone, Serialize, Deserialize, Event)]
#[event(namespace = "ledger")]
enum LedgerEvent {
    Deposited { account: u32, amount: i64, booked_on: u32, reference: String, text: String },
    Withdrawn { account: u32, amount: i64 },
}

/// About 180 bytes of JSON.
fn deposited() -> LedgerEvent {
    LedgerEvent::Deposited {
        account: 4_711,
        amount: 12_345,
        booked_on: 20_261_121,
        reference: "00c0ffee00c0ffee-00004711".to_owned(),
        text: "standing order for the rent of a flat, paid on the first day of the month".to_owned(),
    }
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
        match event.payload() {
            LedgerEvent::Deposited { amount, .. } => *balance += amount,
            LedgerEvent::Withdrawn { amount, .. } => *balance -= amount,
        }
    }

    fn handle(&self, _: &i64, streams: &DepositStreams) -> Result<NewEvents<Self>, Infallible> {
        Ok(NewEvents::new().append(&streams.account, deposited()))
    }
}

struct Fixed;

impl Entropy for Fixed {
    fn event_id(&mut self) -> EventId {
        EventId::try_new(uuid()).unwrap()
    }

    fn jitter(&mut self) -> f64 {
        0.5
    }
}

fn uuid() -> uuid::Uuid {
    uuid::Uuid::from_u128(0x0199_0000_0000_7000_8000_0000_0000_0001)
}

fn account() -> StreamId {
    StreamId::new("account-0004711").unwrap()
}

/// A stream of so many deposits, as a store answers it.
fn stream(length: u64) -> StreamsRead {
    let event = deposited();
    let recorded = |version: u64| {
        let header = EventHeader {
            position: GlobalPosition::try_new(version).unwrap(),
            stream_id: account(),
            version: StreamVersion::try_new(version).unwrap(),
            id: EventId::try_new(uuid()).unwrap(),
            event_type: event.event_type(),
            schema_version: event.schema_version(),
            recorded_at: Timestamp::from_micros(1).unwrap(),
            metadata: EventMetadata::empty(),
        };
        RecordedEvent::new(header, event.encode().unwrap())
    };
    StreamsRead {
        events: (1..=length).map(recorded).collect(),
        versions: vec![StreamVersion::try_new(length).unwrap()],
        receipt: None,
    }
}

/// A whole execution, with the answers of a store that has `length` events.
fn execute(read: StreamsRead) -> u64 {
    let mut step = decide(Deposit { account: account() }, CommandContext::new(), RetryPolicy::default());
    let version = read.versions[0].next().unwrap();
    let mut read = Some(read);
    loop {
        step = match step {
            DecisionStep::Read(reading) => {
                black_box(reading.request());
                reading.read(Ok(read.take().unwrap_or_default()), &mut Fixed)
            }
            DecisionStep::Append(appending) => {
                black_box(appending.request());
                let position = GlobalPosition::try_new(version.get()).unwrap();
                let events = vec![AppendedEvent { stream_id: account(), version, position }];
                let recorded_at = Timestamp::from_micros(1).unwrap();
                appending.appended(Ok(Appended { events, recorded_at, replayed: false }), &mut Fixed)
            }
            DecisionStep::Wait(waiting) => waiting.waited(),
            DecisionStep::Done(done) => return done.map_or(0, |outcome| outcome.events().len() as u64),
            _ => panic!("a step of snapshots, which nobody asked for"),
        };
    }
}

fn codec(c: &mut Criterion) {
    let event = deposited();
    let (event_type, schema_version, payload) = (event.event_type(), event.schema_version(), event.encode().unwrap());
    let mut group = c.benchmark_group("codec");
    group.throughput(Throughput::Bytes(payload.bytes().len() as u64));
    group.bench_function("encode", |b| b.iter(|| black_box(&event).encode().unwrap()));
    group.bench_function("decode", |b| {
        b.iter(|| LedgerEvent::decode(black_box(&event_type), schema_version, black_box(&payload)).unwrap());
    });
    group.bench_function("decode by serde_json alone", |b| {
        #[derive(Deserialize)]
        #[allow(dead_code)]
        struct Deposited {
            account: u32,
            amount: i64,
            booked_on: u32,
            reference: String,
            text: String,
        }
        b.iter(|| serde_json::from_slice::<Deposited>(black_box(payload.bytes())).unwrap());
    });
    group.finish();
}

fn decision(c: &mut Criterion) {
    let mut group = c.benchmark_group("decision");
    for length in [0, 10, 1_000] {
        let read = stream(length);
        group.throughput(Throughput::Elements(length.max(1)));
        group.bench_function(format!("stream of {length} events"), |b| {
            b.iter_batched(|| read.clone(), execute, BatchSize::SmallInput);
        });
    }
    group.finish();
}

fn filter(c: &mut Criterion) {
    let (stream, event_type) = (account(), deposited().event_type());
    let by_prefix = EventFilter::all().stream_prefix(StreamPrefix::new("account-").unwrap());
    let exact = EventFilter::all().streams((0..100).map(|n| StreamId::new(format!("account-{n:07}")).unwrap()));
    let mut group = c.benchmark_group("filter");
    for (name, filter) in [
        ("all", EventFilter::all()),
        ("types", EventFilter::of::<LedgerEvent>()),
        ("prefix", by_prefix),
        ("streams", exact),
    ] {
        group.bench_function(name, |b| b.iter(|| filter.matches(black_box(&stream), black_box(&event_type))));
    }
    group.finish();
}

criterion_group!(benches, codec, decision, filter);
criterion_main!(benches);
