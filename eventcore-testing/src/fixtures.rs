//! What the cases are told with: short ways to names, events, requests and reads.

use crate::ContractViolation;
use crate::harness::OpenStore;
use crate::violation::ensure;
use eventcore::{
    AppendRequest, Appended, CommandClaim, CommandId, EventFilter, EventId, EventMetadata, EventReader, EventStore,
    EventStoreError, ExpectedVersion, Fingerprint, GlobalPosition, NewEvent, PageSize, Payload, ProjectionName,
    ReadStreams, RecordedEvent, SchemaVersion, StreamId, StreamVersion, StreamsRead,
};
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Barrier;
use tokio::task::JoinSet;

/// What a case comes to.
pub(crate) type Outcome = Checked<()>;

/// What a step of a case comes to.
pub(crate) type Checked<T> = Result<T, ContractViolation>;

/// `Ok`, where the compiler cannot tell which.
pub(crate) const fn checked<T>(value: T) -> Checked<T> {
    Ok(value)
}

pub(crate) fn stream(name: &str) -> Checked<StreamId> {
    Ok(StreamId::new(name)?)
}

pub(crate) fn streams(names: &[&str]) -> Checked<Vec<StreamId>> {
    names.iter().map(|name| stream(name)).collect()
}

pub(crate) fn name(text: &str) -> Checked<ProjectionName> {
    Ok(ProjectionName::new(text)?)
}

pub(crate) fn version(number: u64) -> Checked<StreamVersion> {
    Ok(StreamVersion::try_new(number)?)
}

pub(crate) fn exactly(number: u64) -> Checked<ExpectedVersion> {
    Ok(ExpectedVersion::Exact(version(number)?))
}

pub(crate) fn page_size(events: u32) -> Checked<PageSize> {
    Ok(PageSize::try_new(events)?)
}

/// An event of a type, with a number in its payload.
pub(crate) fn event(event_type: &str, number: i64) -> Checked<NewEvent> {
    event_with(event_type, Payload::json(format!("{{\"n\":{number}}}")))
}

pub(crate) fn event_with(event_type: &str, payload: Payload) -> Checked<NewEvent> {
    Ok(NewEvent {
        id: EventId::generate(),
        event_type: event_type.parse()?,
        schema_version: SchemaVersion::default(),
        payload,
        metadata: EventMetadata::empty(),
    })
}

/// The type of events whose type does not matter.
pub(crate) const HAPPENED: &str = "test.Happened";

/// An event whose content does not matter.
pub(crate) fn happened() -> Checked<NewEvent> {
    event(HAPPENED, 0)
}

/// The number in the payload of an event made by [`event`].
pub(crate) fn number_in(event: &RecordedEvent) -> Checked<i64> {
    let text = String::from_utf8_lossy(event.payload().bytes());
    text.strip_prefix("{\"n\":")
        .and_then(|rest| rest.strip_suffix('}'))
        .and_then(|number| number.parse().ok())
        .ok_or_else(|| ContractViolation::broken(format!("payload {text:?} is not what was written")))
}

/// The claim of a command called `id` that works on `on`.
pub(crate) fn claim(id: &str, on: &[&StreamId]) -> Checked<CommandClaim> {
    let fingerprint = Fingerprint::of("test-command", on.iter().copied());
    Ok(CommandClaim { command_id: CommandId::new(id)?, fingerprint })
}

/// A request with expectations and events.
pub(crate) fn request(
    expectations: &[(&StreamId, ExpectedVersion)],
    events: Vec<(&StreamId, NewEvent)>,
) -> Checked<AppendRequest> {
    build(expectations, events, None)
}

/// A request of a command.
pub(crate) fn command(
    claim: &CommandClaim,
    expectations: &[(&StreamId, ExpectedVersion)],
    events: Vec<(&StreamId, NewEvent)>,
) -> Checked<AppendRequest> {
    build(expectations, events, Some(claim))
}

fn build(
    expectations: &[(&StreamId, ExpectedVersion)],
    events: Vec<(&StreamId, NewEvent)>,
    claim: Option<&CommandClaim>,
) -> Checked<AppendRequest> {
    let mut builder = AppendRequest::builder();
    for (stream_id, expected) in expectations {
        builder = builder.expect((*stream_id).clone(), *expected);
    }
    for (stream_id, event) in events {
        builder = builder.event(stream_id.clone(), event);
    }
    if let Some(claim) = claim {
        builder = builder.command(claim.clone());
    }
    Ok(builder.build()?)
}

/// Appends `count` events to one stream, numbered from 1.
pub(crate) async fn append(
    store: &(impl EventStore + ?Sized),
    stream_id: &StreamId,
    expected: ExpectedVersion,
    count: i64,
) -> Checked<Appended> {
    let events = (1..=count).map(|n| Ok((stream_id, event(HAPPENED, n)?))).collect::<Checked<_>>()?;
    Ok(store.append(request(&[(stream_id, expected)], events)?).await?)
}

/// Tries to append one event to a stream.
pub(crate) async fn try_append(
    store: &OpenStore,
    stream_id: &StreamId,
    expected: ExpectedVersion,
) -> Checked<Result<Appended, EventStoreError>> {
    Ok(store.append(request(&[(stream_id, expected)], vec![(stream_id, happened()?)])?).await)
}

/// One consistent read of whole streams.
pub(crate) async fn read(store: &OpenStore, streams: &[&StreamId]) -> Checked<StreamsRead> {
    Ok(store.read_streams(ReadStreams::new(streams.iter().map(|s| (*s).clone()))?).await?)
}

/// Follows the log from its beginning up to `until`, page by page.
///
/// What every page has to be is checked on the way: events in order, wanted, after the cursor before and up to the
/// cursor that it brings.
pub(crate) async fn follow(
    store: &OpenStore,
    filter: &EventFilter,
    limit: PageSize,
    until: Option<GlobalPosition>,
) -> Checked<Vec<RecordedEvent>> {
    let mut follower = Follower::new(store, filter, limit);
    while follower.position < until {
        follower.turn().await?;
    }
    Ok(follower.events)
}

/// Follows the log page by page and keeps what it saw.
pub(crate) struct Follower {
    store: OpenStore,
    filter: EventFilter,
    limit: PageSize,
    pub(crate) position: Option<GlobalPosition>,
    pub(crate) events: Vec<RecordedEvent>,
}

impl Follower {
    pub(crate) fn new(store: &OpenStore, filter: &EventFilter, limit: PageSize) -> Self {
        Self { store: Arc::clone(store), filter: filter.clone(), limit, position: None, events: Vec::new() }
    }

    /// Reads one page. If it brings nothing, others get a turn.
    pub(crate) async fn turn(&mut self) -> Outcome {
        let page = self.store.read_page(&self.filter, self.position, self.limit).await?;
        let mut last = self.position;
        for event in &page.events {
            let wanted = self.filter.matches(event.stream_id(), event.event_type());
            ensure!(wanted, "an unwanted event of {} in {}", event.event_type(), event.stream_id());
            ensure!(Some(event.position()) > last, "out of order: position {} after {last:?}", event.position());
            last = Some(event.position());
        }
        ensure!(page.events.len() <= self.limit.get(), "{} events on a page of {}", page.events.len(), self.limit);
        ensure!(page.more || page.events.len() < self.limit.get(), "a full page that says there is no more");
        match page.position() {
            Some(position) => {
                ensure!(Some(position) >= last, "the cursor {position} is before the last event of its page, {last:?}");
                ensure!(Some(position) > self.position, "the cursor {position} did not move on");
                self.position = Some(position);
            }
            None => {
                ensure!(page.events.is_empty(), "a page of {} events without cursor", page.events.len());
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
        self.events.extend(page.events);
        Ok(())
    }
}

/// Runs all `tasks` at once, each on a task of its own that starts with the others, and gives their results in order.
pub(crate) async fn together<T, F>(tasks: impl IntoIterator<Item = F>) -> Checked<Vec<T>>
where
    T: Send + 'static,
    F: Future<Output = Checked<T>> + Send + 'static,
{
    let tasks: Vec<_> = tasks.into_iter().collect();
    let barrier = Arc::new(Barrier::new(tasks.len()));
    let mut set = JoinSet::new();
    for (index, task) in tasks.into_iter().enumerate() {
        let barrier = Arc::clone(&barrier);
        set.spawn(async move {
            barrier.wait().await;
            (index, task.await)
        });
    }
    let mut results = Vec::new();
    while let Some(joined) = set.join_next().await {
        let (index, result) = joined?;
        results.push((index, result?));
    }
    results.sort_by_key(|(index, _)| *index);
    Ok(results.into_iter().map(|(_, result)| result).collect())
}

/// Tries until it succeeds. For what a store may do a moment later; the time limit of the case is the bound.
pub(crate) async fn eventually<T, F>(mut attempt: impl FnMut() -> F) -> Checked<T>
where
    F: Future<Output = Checked<Option<T>>>,
{
    loop {
        if let Some(value) = attempt().await? {
            return Ok(value);
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}
