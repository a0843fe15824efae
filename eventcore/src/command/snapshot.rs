//! From a known state to a stored snapshot and back.

use super::fold::{Codec, CodecError};
use super::known::Known;
use super::streams::BoundStream;
use super::{Command, CommandLogic, Discovered, StreamBinder};
use crate::{EventType, FoldedStream, Snapshot, SnapshotKey, SnapshotSchema, StreamId, Timestamp, ValidationError};
use bytes::Bytes;
use std::fmt;
use thiserror::Error;
use uuid::Uuid;

/// When snapshots of command state are taken, and how large they may be.
///
/// ```
/// use eventcore::SnapshotPolicy;
///
/// let policy = SnapshotPolicy::every(1_000).up_to_streams(2);
/// assert_ne!(policy, SnapshotPolicy::default());
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SnapshotPolicy {
    pub(crate) every: u64,
    pub(crate) max_streams: usize,
    pub(crate) max_bytes: usize,
    pub(crate) queue: usize,
}

impl Default for SnapshotPolicy {
    /// Every 100 events, of commands on one stream, at most 1 MiB each, and at most 64 waiting to be stored.
    fn default() -> Self {
        Self { every: 100, max_streams: 1, max_bytes: 1024 * 1024, queue: 64 }
    }
}

impl SnapshotPolicy {
    /// A snapshot is taken when so many events were folded that the last one does not have. 0 is taken as 1.
    ///
    /// A lower number makes reads shorter and writes more; an execution looks for a snapshot in any case, which is worth
    /// its round trip for streams of some hundred events and more.
    #[must_use]
    pub fn every(events: u64) -> Self {
        Self { every: events.max(1), ..Self::default() }
    }

    /// Snapshots are taken also of commands on several streams, up to so many. Each *set* of streams has a snapshot of its
    /// own, so this is for sets that come again; of accounts that transfer among each other there are too many. By default
    /// 1; with 0 none are taken.
    #[must_use]
    pub const fn up_to_streams(mut self, streams: usize) -> Self {
        self.max_streams = streams;
        self
    }

    /// The largest state that is stored, in bytes. By default 1 MiB.
    #[must_use]
    pub const fn max_bytes(mut self, bytes: usize) -> Self {
        self.max_bytes = bytes;
        self
    }

    /// How many snapshots may wait to be stored. What comes when so many wait is dropped, and due again with the next append
    /// to its streams. By default 64; 0 is taken as 1.
    #[must_use]
    pub const fn queue(mut self, snapshots: usize) -> Self {
        self.queue = if snapshots == 0 { 1 } else { snapshots };
        self
    }
}

impl SnapshotKey {
    /// The key of the snapshots that are used for a command; `None` if its state has none, or if the name of the state is
    /// no valid name. Streams that are discovered make another set, with another key.
    ///
    /// # Errors
    /// [`ValidationError`] if a field of the command makes no valid stream name.
    pub fn of_command<C: CommandLogic>(command: &C) -> Result<Option<Self>, ValidationError> {
        let mut binder = StreamBinder::new(Discovered::none());
        Command::bind(command, &mut binder)?;
        let fold = C::state_fold();
        Ok(fold.codec().and_then(|codec| key(codec, &binder.into_streams(), command.ignored_event_types()).ok()))
    }
}

/// The key of a state of these streams. Types that are ignored make another state, since the others would be errors.
pub(crate) fn key<C: CommandLogic>(
    codec: &Codec<C>,
    streams: &[BoundStream],
    mut ignored: Vec<EventType>,
) -> Result<SnapshotKey, ValidationError> {
    let mut names: Vec<&str> = streams.iter().map(|stream| stream.stream_id.as_str()).collect();
    names.sort_unstable();
    ignored.sort_unstable();
    ignored.dedup();
    // Names are not empty and hold no control characters, so these separators cannot be mistaken.
    let mut text = names.join("\n");
    for event_type in &ignored {
        text.push_str("\n\n");
        text.push_str(event_type.as_str());
    }
    SnapshotKey::new(format!("{} {}", codec.name, Uuid::new_v5(&Uuid::NAMESPACE_OID, text.as_bytes())))
}

/// Why a stored snapshot is not used.
#[derive(Debug, Error)]
pub(crate) enum Unusable {
    #[error("it is of another type of state, another version of it, or of other events")]
    OtherSchema,
    #[error("it is of other streams")]
    OtherStreams,
    #[error("its bytes are not those that were written")]
    Damaged,
    #[error("its state cannot be decoded")]
    Undecodable(#[source] CodecError),
}

/// The state of a snapshot, for these streams in this order.
pub(crate) fn restore<C: CommandLogic>(
    codec: &Codec<C>,
    key: &SnapshotKey,
    snapshot: Snapshot,
    streams: &[BoundStream],
) -> Result<Known<C::State>, Unusable> {
    let schema = (codec.schema)();
    if snapshot.schema != schema {
        return Err(Unusable::OtherSchema);
    }
    let (digest, state) = snapshot.payload.split_at_checked(DIGEST_BYTES).ok_or(Unusable::Damaged)?;
    let expected = digest_of(key, schema, &snapshot.streams, snapshot.position.get(), state);
    if digest != expected.as_bytes() {
        return Err(Unusable::Damaged);
    }
    let folded = |stream_id: &StreamId| snapshot.streams.iter().find(|folded| &folded.stream_id == stream_id).cloned();
    let folded: Option<Vec<_>> = streams.iter().map(|stream| folded(&stream.stream_id)).collect();
    let folded = folded.filter(|folded| folded.len() == snapshot.streams.len()).ok_or(Unusable::OtherStreams)?;
    let state = (codec.decode)(state).map_err(Unusable::Undecodable)?;
    Ok(Known { state, streams: folded, position: Some(snapshot.position), unsaved: 0, crowded: false })
}

const DIGEST_BYTES: usize = 16;

/// Over everything that belongs together, so that a part of another snapshot is noticed.
fn digest_of(key: &SnapshotKey, schema: SnapshotSchema, streams: &[FoldedStream], position: u64, state: &[u8]) -> Uuid {
    let mut text = format!("{key}\n{schema}\n{position}\n").into_bytes();
    for FoldedStream { stream_id, version, event_id } in streams {
        let event_id = event_id.map(|id| id.to_string()).unwrap_or_default();
        text.extend_from_slice(format!("{stream_id}\n{version} {event_id}\n").as_bytes());
    }
    text.push(b'\n');
    text.extend_from_slice(state);
    Uuid::new_v5(&Uuid::NAMESPACE_OID, &text)
}

/// A snapshot that is due. Making it, off the caller's path, encodes the state.
pub struct DueSnapshot {
    key: SnapshotKey,
    make: Box<dyn FnOnce() -> Result<Snapshot, SnapshotFailure> + Send>,
}

impl DueSnapshot {
    pub(crate) fn new<C: CommandLogic>(
        fold: super::StateFold<C>,
        key: SnapshotKey,
        known: Known<C::State>,
        max_bytes: usize,
    ) -> Self {
        let of = key.clone();
        Self { key, make: Box::new(move || make(&fold, of, known, max_bytes)) }
    }

    /// What it is of.
    #[must_use]
    pub const fn key(&self) -> &SnapshotKey {
        &self.key
    }

    /// Encodes it.
    ///
    /// # Errors
    /// [`SnapshotFailure`] if the state cannot be encoded, is too large, or does not come back equal.
    pub fn make(self) -> Result<Snapshot, SnapshotFailure> {
        (self.make)()
    }
}

impl fmt::Debug for DueSnapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DueSnapshot").field("key", &self.key).finish_non_exhaustive()
    }
}

/// Why no snapshot could be made of a state. Commands go on without.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SnapshotFailure {
    /// Its `Serialize` failed, or what it wrote does not read as the same state.
    #[error("the state cannot be stored as JSON")]
    Encode(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// It is larger than the policy allows.
    #[error("the state has {bytes} bytes, {limit} are allowed")]
    TooLarge {
        /// Its size in bytes.
        bytes: usize,
        /// The limit in bytes.
        limit: usize,
    },
    /// It holds no event.
    #[error("there are no events in it")]
    Empty,
}

fn make<C: CommandLogic>(
    fold: &super::StateFold<C>,
    key: SnapshotKey,
    known: Known<C::State>,
    limit: usize,
) -> Result<Snapshot, SnapshotFailure> {
    let (Some(codec), Some(position)) = (fold.codec(), known.position) else { return Err(SnapshotFailure::Empty) };
    let state = (codec.encode)(&known.state).map_err(SnapshotFailure::Encode)?;
    if state.len() > limit {
        return Err(SnapshotFailure::TooLarge { bytes: state.len(), limit });
    }
    let schema = (codec.schema)();
    let digest = digest_of(&key, schema, &known.streams, position.get(), &state);
    let mut payload = Vec::with_capacity(DIGEST_BYTES + state.len());
    payload.extend_from_slice(digest.as_bytes());
    payload.extend_from_slice(&state);
    let taken_at = Timestamp::now();
    Ok(Snapshot { key, schema, streams: known.streams, position, payload: Bytes::from(payload), taken_at })
}
