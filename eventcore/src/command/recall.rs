//! Deciding on a state that the executor kept, without reading.
//!
//! Only one thing is ever answered of such a decision: that its events were appended, expecting every stream at the version
//! that was folded, so that it was decided on the present state after all. A rejection, a decision to do nothing, further
//! streams, a conflict, and whatever else: it is decided again on what is read.

use super::CommandLogic;
use super::cache::{CacheKey, CachedState};
use super::known::Known;
use super::machine::{Appending, DecisionStep, Entropy, Round, Run};
use crate::{StreamId, StreamVersion};

/// A state may be in the executor's cache.
pub struct Recalling<C: CommandLogic> {
    run: Run<C>,
    key: CacheKey,
    round: Round<C>,
}

impl<C: CommandLogic> Recalling<C> {
    /// Which one.
    #[must_use]
    pub const fn key(&self) -> &CacheKey {
        &self.key
    }

    /// The streams that it is of.
    pub fn streams(&self) -> impl Iterator<Item = &StreamId> {
        self.round.streams.iter().map(|stream| &stream.stream_id)
    }

    /// Goes on with what was in the cache.
    #[must_use]
    pub fn recalled(self, state: Option<CachedState>, entropy: &mut dyn Entropy) -> DecisionStep<C> {
        let Self { run, round, .. } = self;
        let known = state.zip(run.fold.own()).and_then(|(state, fold)| (fold.recall)(&state));
        match known.filter(|known| known.is_of(&round.streams)) {
            Some(known) => run.predict(round, known, entropy),
            None => run.begin(round),
        }
    }
}

impl<C: CommandLogic> Run<C> {
    /// Where the state of these streams may be kept; `None` if it may not.
    pub(super) fn cache_key<'a>(&self, streams: impl Iterator<Item = &'a StreamId>) -> Option<CacheKey> {
        let fold = self.fold.own().filter(|_| self.cache)?;
        let mut ignored = self.command.ignored_event_types();
        ignored.sort_unstable();
        Some(CacheKey::new(fold.state, streams, &ignored))
    }

    /// Looks into the cache first, once.
    pub(super) fn recall(mut self, round: Round<C>) -> DecisionStep<C> {
        let first = round.rounds == 0 && !std::mem::replace(&mut self.recalled, true);
        match self.cache_key(round.streams.iter().map(|stream| &stream.stream_id)).filter(|_| first) {
            Some(key) => DecisionStep::Recall(Recalling { run: self, key, round }),
            None => self.begin(round),
        }
    }

    /// Decides on what may be out of date.
    fn predict(self, round: Round<C>, known: Known<C::State>, entropy: &mut dyn Entropy) -> DecisionStep<C> {
        if round.enlarged_by(self.command.discover(&known.state)).is_some() {
            return self.read_on(round, known);
        }
        let events = match self.command.handle(&known.state, &round.handles) {
            Ok(events) if !events.as_slice().is_empty() => events.into_vec(),
            _ => return self.read_on(round, known),
        };
        let versions: Vec<StreamVersion> = known.streams.iter().map(|stream| stream.version).collect();
        match self.request(&round.streams, &versions, events, entropy) {
            Ok(request) => DecisionStep::Append(Appending {
                run: self,
                request,
                known,
                predicted: Some(round),
                sent_before: false,
            }),
            Err(_) => self.read_on(round, known),
        }
    }
}
