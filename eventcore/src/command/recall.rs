//! Deciding on a state that the executor kept, without reading.
//!
//! Only one thing is ever answered of such a decision: that its events were appended, expecting every stream at the version
//! that was folded, so that it was decided on the present state after all. A rejection, a decision to do nothing, further
//! streams, a conflict, and whatever else: it is decided again on what is read.

use super::CommandLogic;
use super::cache::{CacheKey, CachedState};
use super::known::Known;
use super::machine::{Appending, DecisionStep, Entropy, Recall, Round, Run, Waiting};
use crate::{AppendRequest, StreamId};
use std::time::Duration;

/// A state may be in the executor's cache.
pub struct Recalling<C: CommandLogic> {
    pub(super) run: Box<Run<C>>,
    key: CacheKey,
    pub(super) round: Round<C>,
    /// Whether it is decided on, or only gone on from.
    to_decide: bool,
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

    /// Whether the command is decided on it at once. If not, what is new is read first.
    #[must_use]
    pub const fn is_to_decide(&self) -> bool {
        self.to_decide
    }

    /// Whether the command may be decided together with others, in one append.
    ///
    /// One with an identity may not, since a receipt is of an append of its own.
    #[must_use]
    pub fn is_joinable(&self) -> bool {
        self.to_decide && self.run.claim.is_none() && self.run.fold.is_timeless()
    }

    /// The command is decided by itself, on what is read.
    pub(super) fn alone(self) -> DecisionStep<C> {
        self.run.left_out(Some(self.round), None)
    }

    /// Goes on with what was in the cache.
    #[must_use]
    pub fn recalled(self, state: Option<CachedState>, entropy: &mut dyn Entropy) -> DecisionStep<C> {
        let Self { run, round, to_decide, .. } = self;
        let known = state.zip(run.fold.own()).and_then(|(state, fold)| (fold.recall)(&state));
        match known.filter(|known| known.is_of(&round.streams)) {
            Some(known) if to_decide => run.predict(round, known, entropy),
            Some(known) => run.read_on(round, known),
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
    pub(super) fn recall(mut self: Box<Self>, round: Round<C>) -> DecisionStep<C> {
        if round.rounds > 0 {
            // Of more streams than the declared ones, for which alone the cache is ever asked.
            self.key = None;
            return self.begin(round);
        }
        self.key = self.cache_key(round.streams.iter().map(|stream| &stream.stream_id));
        let to_decide = match std::mem::replace(&mut self.recall, Recall::Not) {
            Recall::ToDecide => true,
            Recall::ToReadOn => false,
            Recall::Not => return self.begin(round),
        };
        match self.key {
            Some(key) => DecisionStep::Recall(Recalling { run: self, key, round, to_decide }),
            None => self.begin(round),
        }
    }

    /// Decides on what may be out of date.
    fn predict(self: Box<Self>, round: Round<C>, known: Known<C::State>, entropy: &mut dyn Entropy) -> DecisionStep<C> {
        match self.guess(&round, &known, entropy) {
            Some(request) => DecisionStep::Append(Appending {
                run: self,
                request,
                own: None,
                known: Some(known),
                predicted: Some(round),
                alone: false,
                sent_before: false,
            }),
            None => self.read_on(round, known),
        }
    }

    /// The append decided on a state that nothing has confirmed yet; `None` if what was decided is only an answer once it
    /// has been decided on a fresh read.
    pub(super) fn guess(
        &self,
        round: &Round<C>,
        known: &Known<C::State>,
        entropy: &mut dyn Entropy,
    ) -> Option<AppendRequest> {
        if round.enlarged_by(self.command.discover(&known.state)).is_some() {
            return None;
        }
        let events = self.command.handle(&known.state, &round.handles).ok()?.into_vec();
        if events.is_empty() {
            return None;
        }
        let versions = known.streams.iter().map(|stream| stream.version);
        self.request(&round.streams, versions, events, entropy).ok()
    }

    /// The command had no part in an append, or it came to nothing: it goes on alone, from what is in the cache by then. All
    /// who had a part in what was refused take turns at `contended`, instead of being in each other's way.
    pub(super) fn left_out(
        mut self: Box<Self>,
        round: Option<Round<C>>,
        contended: Option<StreamId>,
    ) -> DecisionStep<C> {
        self.recall = Recall::ToReadOn;
        let next = match round {
            Some(round) => self.recall(round),
            None => self.attempt(),
        };
        match contended {
            None => next,
            contended => DecisionStep::Wait(Waiting { delay: Duration::ZERO, contended, then: Box::new(next) }),
        }
    }
}
