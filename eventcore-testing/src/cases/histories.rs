//! Random histories, compared answer by answer with a store so plain that it is right at a glance.

use crate::Environment;
use crate::fixtures::*;
use crate::harness::OpenStore;
use crate::violation::{ensure, ensure_eq, ensure_matches};
use eventcore::{
    AppendRequest, Appended, CommandClaim, CommandId, EventFilter, EventReader, EventStore, EventStoreError,
    ExpectedVersion, Fingerprint, GlobalPosition, NewEvent, ReadStreams, RecordedEvent, StreamId, StreamPosition,
    StreamPrefix, StreamVersion, VersionConflict,
};
use std::collections::BTreeMap;

/// Few names, so that everything meets everything.
const STREAMS: [&str; 5] = ["account-1", "account-2", "account_1", "order-1", "Order-1"];
const TYPES: [&str; 3] = ["test.One", "test.Two", "test.two"];

pub(crate) async fn random_histories_answer_as_a_plain_model_says(env: &Environment) -> Outcome {
    for seed in 0..4 {
        let store = env.fresh().await?;
        let mut history = History { chance: fastrand::Rng::with_seed(seed), model: Model::default(), store };
        for _ in 0..80 {
            match history.chance.u8(..10) {
                0..5 => history.append().await?,
                5..7 => history.read_streams().await?,
                7 => history.read_stream().await?,
                _ => history.read_page().await?,
            }
        }
    }
    Ok(())
}

/// What a store has to know, in lists.
#[derive(Default)]
struct Model {
    log: Vec<(GlobalPosition, StreamId, StreamVersion, NewEvent)>,
    receipts: BTreeMap<CommandId, (Fingerprint, Appended)>,
}

/// How an append has to be answered.
enum Verdict {
    Replayed(Appended),
    Reused,
    Conflict(VersionConflict),
    Accepted,
}

impl Model {
    fn version_of(&self, stream_id: &StreamId) -> StreamVersion {
        self.of(stream_id).map(|(_, _, version, _)| *version).last().unwrap_or_default()
    }

    fn of(&self, wanted: &StreamId) -> impl Iterator<Item = &(GlobalPosition, StreamId, StreamVersion, NewEvent)> {
        self.log.iter().filter(move |(_, stream_id, ..)| stream_id == wanted)
    }

    fn verdict(&self, request: &AppendRequest) -> Verdict {
        if let Some(claim) = request.command()
            && let Some((fingerprint, first)) = self.receipts.get(&claim.command_id)
        {
            let replayed = Appended { replayed: true, ..first.clone() };
            return if *fingerprint == claim.fingerprint { Verdict::Replayed(replayed) } else { Verdict::Reused };
        }
        let judged =
            request.streams().iter().find_map(|s| s.expected.judge(&s.stream_id, self.version_of(&s.stream_id)).err());
        judged.map_or(Verdict::Accepted, Verdict::Conflict)
    }
}

struct History {
    chance: fastrand::Rng,
    model: Model,
    store: OpenStore,
}

impl History {
    async fn append(&mut self) -> Outcome {
        let request = self.request()?;
        let answer = self.store.append(request.clone()).await;
        match self.model.verdict(&request) {
            Verdict::Replayed(first) => ensure_eq!(answer?, first, "the receipt of {request:?}"),
            Verdict::Reused => ensure_matches!(answer, Err(EventStoreError::CommandIdReused { .. }), "{request:?}"),
            Verdict::Conflict(expected) => {
                ensure_matches!(answer, Err(EventStoreError::Conflict(found)) if *found == expected, "{request:?}, {expected}");
            }
            Verdict::Accepted => self.accepted(&request, answer?)?,
        }
        ensure_eq!(self.store.head().await?, self.model.log.last().map(|(position, ..)| *position), "head");
        Ok(())
    }

    fn accepted(&mut self, request: &AppendRequest, answer: Appended) -> Outcome {
        ensure_eq!((answer.replayed, answer.events.len()), (false, request.events().len()), "replay and events");
        for (item, place) in request.events().iter().zip(&answer.events) {
            let stream_id = request.stream_of(item);
            let version = self.model.version_of(stream_id).next()?;
            ensure_eq!((&place.stream_id, place.version), (stream_id, version), "stream and version of an event");
            let last = self.model.log.last().map(|(position, ..)| *position);
            ensure!(Some(place.position) > last, "position {} after {last:?}", place.position);
            self.model.log.push((place.position, stream_id.clone(), version, item.event.clone()));
        }
        if let Some(claim) = request.command() {
            self.model.receipts.insert(claim.command_id.clone(), (claim.fingerprint, answer));
        }
        Ok(())
    }

    async fn read_streams(&mut self) -> Outcome {
        let mut positions = Vec::new();
        for name in STREAMS {
            if self.chance.bool() {
                positions.push(StreamPosition { stream_id: stream(name)?, after: version(self.chance.u64(0..4))? });
            }
        }
        self.chance.shuffle(&mut positions);
        let claim = self.claim()?;
        let request = ReadStreams::after(positions.clone())?.with_receipt_of(Some(claim.command_id.clone()));
        let read = self.store.read_streams(request).await?;
        let wanted = self.model.log.iter().filter(|(_, stream_id, version, _)| {
            positions.iter().any(|wanted| wanted.stream_id == *stream_id && *version > wanted.after)
        });
        are_these(&read.events, wanted, "a consistent read")?;
        let versions: Vec<_> = positions.iter().map(|p| self.model.version_of(&p.stream_id)).collect();
        ensure_eq!(read.versions, versions, "versions of {positions:?}");
        let known = self.model.receipts.get(&claim.command_id);
        let receipt = read.receipt.map(|receipt| (receipt.claim.fingerprint, receipt.events));
        ensure_eq!(receipt, known.map(|(fingerprint, first)| (*fingerprint, first.events.clone())), "receipt");
        Ok(())
    }

    async fn read_stream(&mut self) -> Outcome {
        let stream_id = self.stream()?;
        let (after, limit) = (version(self.chance.u64(0..6))?, page_size(self.chance.u32(1..6))?);
        let page = self.store.read_stream(&stream_id, after, limit).await?;
        let wanted = self.model.of(&stream_id).filter(|(_, _, version, _)| *version > after).take(limit.get());
        are_these(&page.events, wanted, "a page of a stream")
    }

    async fn read_page(&mut self) -> Outcome {
        let head = self.store.head().await?;
        // What was acknowledged may come into the feed a moment later.
        follow(&self.store, &EventFilter::all(), page_size(10_000)?, head).await?;
        let after = self.model.log.get(self.chance.usize(0..30)).map(|(position, ..)| *position);
        let (filter, limit) = (self.filter()?, page_size(self.chance.u32(1..20))?);
        let page = self.store.read_page(&filter, after, limit).await?;
        let behind = self.model.log.iter().filter(|(position, ..)| Some(*position) > after);
        let wanted = behind.filter(|(_, stream_id, _, event)| filter.matches(stream_id, &event.event_type));
        let wanted: Vec<_> = wanted.collect();
        if page.more && page.events.len() < limit.get() {
            // A store may look at only so many events at once, if it says so.
            are_these(&page.events, wanted.into_iter().take(page.events.len()), "a partial page")
        } else {
            are_these(&page.events, wanted.into_iter().take(limit.get()), "a page of the log")
        }
    }

    fn request(&mut self) -> Checked<AppendRequest> {
        let mut builder = AppendRequest::builder();
        for name in STREAMS {
            if self.chance.u8(..3) == 0 {
                let stream_id = stream(name)?;
                let actual = self.model.version_of(&stream_id).get();
                let expected = match self.chance.u8(..12) {
                    0 => ExpectedVersion::NoStream,
                    1 => ExpectedVersion::StreamExists,
                    2 => ExpectedVersion::Any,
                    3 => exactly(actual + 1)?,
                    4 => exactly(actual.saturating_sub(1))?,
                    _ => exactly(actual)?,
                };
                builder = builder.expect(stream_id, expected);
            }
        }
        for _ in 0..self.chance.u8(1..4) {
            let event_type = TYPES[self.chance.usize(..TYPES.len())];
            builder = builder.event(self.stream()?, event(event_type, self.chance.i64(..))?);
        }
        if self.chance.u8(..3) == 0 {
            builder = builder.command(self.claim()?);
        }
        Ok(builder.build()?)
    }

    fn claim(&mut self) -> Checked<CommandClaim> {
        let command_id = CommandId::new(format!("command-{}", self.chance.u8(..8)))?;
        let command_type = if self.chance.u8(..5) == 0 { "other" } else { "usual" };
        Ok(CommandClaim { command_id, fingerprint: Fingerprint::of(command_type, []) })
    }

    fn stream(&mut self) -> Checked<StreamId> {
        stream(STREAMS[self.chance.usize(..STREAMS.len())])
    }

    fn filter(&mut self) -> Checked<EventFilter> {
        let mut filter = EventFilter::all();
        if self.chance.bool() {
            let types = TYPES.iter().filter(|_| self.chance.bool()).map(|t| Ok(t.parse()?));
            filter = filter.types(types.collect::<Checked<Vec<_>>>()?);
        }
        Ok(match self.chance.u8(..3) {
            0 => filter,
            1 => filter.streams([self.stream()?, self.stream()?]),
            _ => filter.stream_prefix(StreamPrefix::new(
                ["account", "account_", "a", "O", "order-1"][self.chance.usize(..5)],
            )?),
        })
    }
}

fn are_these<'a>(
    found: &[RecordedEvent],
    expected: impl Iterator<Item = &'a (GlobalPosition, StreamId, StreamVersion, NewEvent)>,
    what: &str,
) -> Outcome {
    let found: Vec<_> = found.iter().map(|e| (e.position(), e.stream_id(), e.version(), e.id(), e.payload())).collect();
    let expected = expected.map(|(position, stream_id, version, e)| (*position, stream_id, *version, e.id, &e.payload));
    ensure_eq!(found, expected.collect::<Vec<_>>(), "events of {what}");
    Ok(())
}
