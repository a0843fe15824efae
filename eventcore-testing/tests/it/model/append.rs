//! Appending, rightly and wrongly.

use super::{Defect, ModelStore, State};
use async_trait::async_trait;
use eventcore::{
    AppendRequest, Appended, AppendedEvent, EventHeader, EventId, EventMetadata, EventStore, EventStoreError,
    EventToAppend, ExpectedVersion, GlobalPosition, Payload, ReadStreams, Receipt, RecordedEvent, SchemaVersion,
    StreamId, StreamVersion, StreamsRead, Timestamp, VersionConflict,
};

#[async_trait]
impl EventStore for ModelStore {
    async fn append(&self, request: AppendRequest) -> Result<Appended, EventStoreError> {
        if !self.has(Defect::NoSizeLimit) {
            self.shared.limits.append.check(&request)?;
        }
        if self.has(Defect::JudgedInAStepOfItsOwn) {
            self.judged(&request, &*self.open()?)?;
            tokio::task::yield_now().await;
        }
        let appended = match self.shared.defect {
            Some(Defect::NaiveVisibility) => self.append_without_horizon(&request).await,
            Some(Defect::HalfAppendsVisible) => self.append_one_by_one(&request).await,
            Some(Defect::ReceiptInAStepOfItsOwn) => self.append_then_receipt(&request).await,
            _ => self.append_at_once(&request, &mut *self.open()?),
        };
        if !self.has(Defect::NobodyIsWoken) && appended.as_ref().is_ok_and(|a| !a.replayed) {
            self.shared.signal.notify();
        }
        appended
    }

    async fn read_streams(&self, request: ReadStreams) -> Result<StreamsRead, EventStoreError> {
        self.read_consistently(&request).await
    }

    async fn stream_version(&self, stream_id: &StreamId) -> Result<StreamVersion, EventStoreError> {
        version(self.version_of(&*self.open()?, stream_id))
    }

    async fn head(&self) -> Result<Option<GlobalPosition>, EventStoreError> {
        Ok(self.open()?.events.last().map(RecordedEvent::position))
    }

    async fn prune_receipts(&self, older_than: Timestamp) -> Result<u64, EventStoreError> {
        let mut state = self.open()?;
        let before = state.receipts.len();
        state.receipts.retain(|_, receipt| match self.shared.defect {
            Some(Defect::PrunesOneTooMany) => receipt.recorded_at > older_than,
            Some(Defect::PrunesNothing) => true,
            _ => receipt.recorded_at >= older_than,
        });
        Ok((before - state.receipts.len()) as u64)
    }

    async fn close(&self) -> Result<(), EventStoreError> {
        self.state().closed = true;
        if !self.has(Defect::ClosesSilently) {
            self.shared.signal.notify();
        }
        Ok(())
    }
}

impl ModelStore {
    /// The right way, under one lock.
    fn append_at_once(&self, request: &AppendRequest, state: &mut State) -> Result<Appended, EventStoreError> {
        if self.has(Defect::ReplayJudgedFirst) {
            self.judged(request, state)?;
        }
        if let Some(receipt) = self.known(request, state)? {
            return Ok(receipt);
        }
        let judged = if self.has(Defect::JudgedInAStepOfItsOwn) { Ok(()) } else { self.judged(request, state) };
        if let Err(conflict) = judged {
            if self.has(Defect::PartialAppend) {
                self.store_what_fits(request, state)?;
            }
            if self.has(Defect::ReceiptInSpiteOfConflict) {
                self.remember(request, Vec::new(), Timestamp::now(), state);
            }
            if self.has(Defect::ConflictBurnsPosition) {
                state.last_position += 1;
            }
            return Err(conflict);
        }
        self.store(request, state)
    }

    /// The receipt of a command that comes again.
    fn known(&self, request: &AppendRequest, state: &State) -> Result<Option<Appended>, EventStoreError> {
        if self.has(Defect::ReplayStoredAgain) {
            return Ok(None);
        }
        let receipt = request.command().and_then(|claim| Some((claim, state.receipts.get(&claim.command_id)?)));
        let Some((claim, receipt)) = receipt else { return Ok(None) };
        let claim = if self.has(Defect::FingerprintIgnored) { &receipt.claim } else { claim };
        let mut appended = receipt.replay(claim)?;
        if self.has(Defect::ReplayWithoutPlaces) {
            appended.events.clear();
        }
        if self.has(Defect::ReplayNotMarked) {
            appended.replayed = false;
        }
        Ok(Some(appended))
    }

    fn judged(&self, request: &AppendRequest, state: &State) -> Result<(), EventStoreError> {
        for stream in request.streams() {
            let actual = version(self.version_of(state, &stream.stream_id))?;
            let expected = match (self.shared.defect, stream.expected) {
                (Some(Defect::NoVersionCheck), _) => ExpectedVersion::Any,
                (Some(Defect::OnlyWrittenStreamsJudged), _) if !stream.written => ExpectedVersion::Any,
                (Some(Defect::NoStreamIsAny), ExpectedVersion::NoStream) => ExpectedVersion::Any,
                (Some(Defect::StreamExistsIsAny), ExpectedVersion::StreamExists) => ExpectedVersion::Any,
                (Some(Defect::ExactIsAtLeast), ExpectedVersion::Exact(version)) if actual > version => {
                    ExpectedVersion::Any
                }
                (_, expected) => expected,
            };
            if let Err(conflict) = expected.judge(&stream.stream_id, actual) {
                let actual = if self.has(Defect::ConflictTellsNoActual) { version(0)? } else { conflict.actual };
                return Err(VersionConflict { actual, ..conflict }.into());
            }
        }
        Ok(())
    }

    fn store(&self, request: &AppendRequest, state: &mut State) -> Result<Appended, EventStoreError> {
        let recorded_at = Timestamp::now();
        let mut places = self.number(request, state)?;
        let stored = places.iter().zip(request.events()).map(|(place, item)| self.recorded(item, place, recorded_at));
        state.events.extend(stored);
        state.events.sort_by_key(RecordedEvent::position);
        let remembered =
            if self.has(Defect::ReceiptForgetsOrder) { places.iter().rev().cloned().collect() } else { places.clone() };
        if !(self.has(Defect::NoReceiptWithoutEvents) && places.is_empty()) {
            self.remember(request, remembered, recorded_at, state);
        }
        if self.has(Defect::AnswersWrongPositions) {
            places.reverse();
        }
        Ok(Appended { events: places, recorded_at, replayed: false })
    }

    fn number(&self, request: &AppendRequest, state: &mut State) -> Result<Vec<AppendedEvent>, EventStoreError> {
        let mut places = Vec::new();
        for item in request.events() {
            state.last_position += 1;
            let stream_id = self.stored_name(request.stream_of(item))?;
            let version_now = state.versions.entry(stream_id.clone()).or_default();
            *version_now += 1;
            let version = version(*version_now)?;
            let position = GlobalPosition::try_new(state.last_position).map_err(EventStoreError::storage)?;
            places.push(AppendedEvent { stream_id, version, position });
        }
        if self.has(Defect::PositionsAgainstTheOrder) {
            let positions: Vec<_> = places.iter().rev().map(|place| place.position).collect();
            places.iter_mut().zip(positions).for_each(|(place, position)| place.position = position);
        }
        Ok(places)
    }

    fn remember(&self, request: &AppendRequest, events: Vec<AppendedEvent>, recorded_at: Timestamp, state: &mut State) {
        if let Some(claim) = request.command() {
            let receipt = Receipt { claim: claim.clone(), events, recorded_at };
            state.receipts.insert(claim.command_id.clone(), receipt);
        }
    }

    /// Stores the events whose own stream is as expected.
    fn store_what_fits(&self, request: &AppendRequest, state: &mut State) -> Result<(), EventStoreError> {
        let fits: Vec<_> = request
            .streams()
            .iter()
            .map(|stream| {
                let actual = self.version_of(state, &stream.stream_id);
                version(actual).is_ok_and(|actual| stream.expected.is_met_by(actual))
            })
            .collect();
        let mut part = AppendRequest::builder();
        for item in request.events().iter().filter(|item| fits[item.stream]) {
            part = part.event(request.stream_of(item).clone(), item.event.clone());
        }
        if let Ok(part) = part.build() {
            self.store(&part, state)?;
        }
        Ok(())
    }

    /// Draws positions first and shows the events a moment later, so that a later append may be seen before.
    async fn append_without_horizon(&self, request: &AppendRequest) -> Result<Appended, EventStoreError> {
        let (places, recorded_at) = {
            let mut state = self.open()?;
            if let Some(receipt) = self.known(request, &state)? {
                return Ok(receipt);
            }
            self.judged(request, &state)?;
            (self.number(request, &mut state)?, Timestamp::now())
        };
        let lag = places.first().map_or(0, |place| place.position.get() % 5);
        for _ in 0..lag * 3 {
            tokio::task::yield_now().await;
        }
        let mut state = self.open()?;
        let stored = places.iter().zip(request.events()).map(|(place, item)| self.recorded(item, place, recorded_at));
        state.events.extend(stored);
        state.events.sort_by_key(RecordedEvent::position);
        self.remember(request, places.clone(), recorded_at, &mut state);
        Ok(Appended { events: places, recorded_at, replayed: false })
    }

    /// Judges rightly, then stores event by event.
    async fn append_one_by_one(&self, request: &AppendRequest) -> Result<Appended, EventStoreError> {
        {
            let state = self.open()?;
            if let Some(receipt) = self.known(request, &state)? {
                return Ok(receipt);
            }
            self.judged(request, &state)?;
        }
        let mut places = Vec::new();
        for item in request.events() {
            let one = AppendRequest::builder().event(request.stream_of(item).clone(), item.event.clone()).build()?;
            places.extend(self.store(&one, &mut *self.open()?)?.events);
            tokio::task::yield_now().await;
        }
        let recorded_at = Timestamp::now();
        self.remember(request, places.clone(), recorded_at, &mut *self.open()?);
        Ok(Appended { events: places, recorded_at, replayed: false })
    }

    /// Looks for the receipt in one step and stores in another.
    async fn append_then_receipt(&self, request: &AppendRequest) -> Result<Appended, EventStoreError> {
        if let Some(receipt) = self.known(request, &*self.open()?)? {
            return Ok(receipt);
        }
        tokio::task::yield_now().await;
        let mut state = self.open()?;
        self.judged(request, &state)?;
        self.store(request, &mut state)
    }

    fn recorded(&self, item: &EventToAppend, place: &AppendedEvent, recorded_at: Timestamp) -> RecordedEvent {
        let event = &item.event;
        let bytes = event.payload.bytes().clone();
        let payload = match self.shared.defect {
            Some(Defect::PayloadNormalised) => match serde_json::from_slice::<serde_json::Value>(&bytes) {
                Ok(value) => Payload::new(event.payload.content_type(), value.to_string()),
                Err(_) => event.payload.clone(),
            },
            Some(Defect::PayloadAsText) => {
                Payload::new(event.payload.content_type(), String::from_utf8_lossy(&bytes).into_owned())
            }
            Some(Defect::ContentTypeLost) => Payload::json(bytes),
            _ => event.payload.clone(),
        };
        let header = EventHeader {
            position: place.position,
            stream_id: place.stream_id.clone(),
            version: place.version,
            id: if self.has(Defect::EventIdReplaced) { EventId::generate() } else { event.id },
            event_type: event.event_type.clone(),
            schema_version: if self.has(Defect::SchemaVersionLost) {
                SchemaVersion::default()
            } else {
                event.schema_version
            },
            recorded_at: if self.has(Defect::TimeInMilliseconds) { milliseconds(recorded_at) } else { recorded_at },
            metadata: if self.has(Defect::MetadataLost) { EventMetadata::empty() } else { event.metadata.clone() },
        };
        RecordedEvent::new(header, payload)
    }

    pub(super) fn version_of(&self, state: &State, stream_id: &StreamId) -> u64 {
        let name = self.stored_name(stream_id);
        name.ok().and_then(|name| state.versions.get(&name).copied()).unwrap_or_default()
    }

    /// The name under which a stream is stored.
    pub(super) fn stored_name(&self, stream_id: &StreamId) -> Result<StreamId, EventStoreError> {
        let name = match self.shared.defect {
            Some(Defect::NamesIgnoreCase) => stream_id.as_str().to_lowercase(),
            Some(Defect::NamesCutOff) => stream_id.as_str().chars().take(254).collect(),
            _ => return Ok(stream_id.clone()),
        };
        StreamId::new(name).map_err(EventStoreError::storage)
    }
}

pub(super) fn version(number: u64) -> Result<StreamVersion, EventStoreError> {
    StreamVersion::try_new(number).map_err(EventStoreError::storage)
}

/// Cuts off the microseconds; one more if there are none, so that the loss always shows.
fn milliseconds(time: Timestamp) -> Timestamp {
    let micros = time.as_micros();
    Timestamp::from_micros(if micros % 1_000 == 0 { micros - 1 } else { micros - micros % 1_000 }).unwrap_or(time)
}
