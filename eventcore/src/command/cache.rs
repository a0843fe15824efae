//! States that an executor keeps in memory between executions.

use crate::StreamId;
use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::fmt;
use std::hash::{BuildHasher, BuildHasherDefault, Hash, Hasher, RandomState};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};

/// What keys are digested with, drawn anew by every process: names come from users, who cannot choose two that digest alike.
static SEED: LazyLock<RandomState> = LazyLock::new(RandomState::new);

/// Which state a command would be decided on: its type, its streams in their order, and the event types it ignores.
///
/// Streams that digest alike would share a place, and take turns at it: whoever finds a state there looks which streams it
/// is of. Ignored types are told apart by the digest alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CacheKey {
    state: TypeId,
    digest: u64,
}

impl CacheKey {
    pub(super) fn new<'a>(
        state: TypeId,
        streams: impl Iterator<Item = &'a StreamId>,
        ignored: &[crate::EventType],
    ) -> Self {
        let mut hasher = SEED.build_hasher();
        // A text is hashed with an end that no text holds, and names with control characters, as are in a small number, are
        // none.
        streams.for_each(|stream| stream.as_str().hash(&mut hasher));
        ignored.len().hash(&mut hasher);
        ignored.iter().for_each(|event_type| event_type.as_str().hash(&mut hasher));
        Self { state, digest: hasher.finish() }
    }
}

impl Hash for CacheKey {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        hasher.write_u64(self.digest);
    }
}

/// For tables whose keys are digests: they are not hashed once more.
pub(super) type Digested = BuildHasherDefault<Digest>;

#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Digest(u64);

impl Hasher for Digest {
    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|&byte| self.0 = self.0.rotate_left(8) ^ u64::from(byte));
    }

    fn write_u64(&mut self, digest: u64) {
        self.0 = digest;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// A state as of some moment, and of which one exactly. Opaque, since the executor keeps those of all its commands.
#[derive(Clone)]
pub struct CachedState(pub(super) Arc<dyn Any + Send + Sync>);

impl fmt::Debug for CachedState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CachedState").finish_non_exhaustive()
    }
}

/// At most so many states, those used lately. A hand goes round: a state that was used since it came by is passed over once
/// more, and the first one that was not gives its place to a new one.
pub(super) struct StateCache {
    places: Mutex<Places>,
}

struct Places {
    most: usize,
    states: HashMap<CacheKey, Place, Digested>,
    /// All keys, for the hand.
    keys: Vec<CacheKey>,
    /// Where the hand is.
    hand: usize,
}

struct Place {
    state: CachedState,
    used: bool,
}

impl StateCache {
    pub(super) fn new(states: usize) -> Self {
        let places = Places { most: states.max(1), states: HashMap::default(), keys: Vec::new(), hand: 0 };
        Self { places: Mutex::new(places) }
    }

    pub(super) fn get(&self, key: &CacheKey) -> Option<CachedState> {
        let mut places = self.places();
        let place = places.states.get_mut(key)?;
        place.used = true;
        Some(place.state.clone())
    }

    pub(super) fn put(&self, key: CacheKey, state: CachedState) {
        let before = self.places().put(key, state);
        // Not under the lock: what a state does when it goes is the application's.
        drop(before);
    }

    fn places(&self) -> MutexGuard<'_, Places> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Places {
    /// Gives back what it takes the place of.
    fn put(&mut self, key: CacheKey, state: CachedState) -> Option<CachedState> {
        if let Some(place) = self.states.get_mut(&key) {
            // A state is put back by whoever used it.
            place.used = true;
            return Some(std::mem::replace(&mut place.state, state));
        }
        let new = Place { state, used: false };
        if self.keys.len() < self.most {
            self.keys.push(key);
            self.states.insert(key, new);
            return None;
        }
        let free = self.free();
        let before = std::mem::replace(&mut self.keys[free], key);
        let before = self.states.remove(&before).map(|place| place.state);
        self.states.insert(key, new);
        before
    }

    /// Where the key of a state is that was not used lately, if there is one among the next: everybody waits for the hand
    /// meanwhile. There are as many states as there may be: one at least.
    fn free(&mut self) -> usize {
        const PASSED_AT_MOST: usize = 64;
        for _ in 0..PASSED_AT_MOST {
            let at = self.forward();
            match self.states.get_mut(&self.keys[at]) {
                Some(passed) if passed.used => passed.used = false,
                _ => return at,
            }
        }
        self.forward()
    }

    /// Moves the hand on, and tells where it was.
    fn forward(&mut self) -> usize {
        let next = (self.hand + 1) % self.keys.len();
        std::mem::replace(&mut self.hand, next)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test")]
mod tests {
    use super::*;

    fn key(n: u32) -> CacheKey {
        let stream = StreamId::new(format!("s{n}")).unwrap();
        CacheKey::new(TypeId::of::<u32>(), std::iter::once(&stream), &[])
    }

    #[test]
    fn it_holds_at_most_so_many_and_keeps_what_is_used() {
        let cache = StateCache::new(10);
        for n in 0..1_000 {
            cache.put(key(n), CachedState(Arc::new(n)));
            assert!(cache.get(&key(0)).is_some(), "0 is used all the time, {n} is the last one");
            // As a command does that was decided on it.
            cache.put(key(0), CachedState(Arc::new(n)));
            let places = cache.places();
            assert!(places.keys.len() <= 10 && places.states.len() == places.keys.len());
        }
        assert!(cache.get(&key(999)).is_some());
        assert!(cache.get(&key(500)).is_none());
    }
    #[test]
    fn it_holds_as_many_as_it_may() {
        let cache = StateCache::new(10);
        (0..10).for_each(|n| cache.put(key(n), CachedState(Arc::new(n))));
        for n in (0..10).chain(0..10) {
            assert!(cache.get(&key(n)).is_some(), "{n} is gone, and nothing new has come");
        }
        cache.put(key(3), CachedState(Arc::new(33_u32)));
        let three = cache.get(&key(3)).unwrap();
        assert_eq!(three.0.downcast_ref::<u32>(), Some(&33), "the state of a key is the last one");
        assert!((0..10).all(|n| cache.get(&key(n)).is_some()));
    }

    #[test]
    fn keys_differ_by_streams_their_order_and_what_is_ignored() {
        let ignored = |name: &str| [crate::EventType::new(name).unwrap()];
        let of = |streams: &[&str], ignored: &[crate::EventType]| {
            let streams: Vec<StreamId> = streams.iter().map(|name| StreamId::new(*name).unwrap()).collect();
            CacheKey::new(TypeId::of::<u32>(), streams.iter(), ignored)
        };
        let keys = [
            of(&["a", "b"], &[]),
            of(&["b", "a"], &[]),
            of(&["ab"], &[]),
            of(&["a"], &[]),
            of(&["a"], &ignored("b")),
            of(&["a", "b"], &ignored("b")),
            CacheKey::new(TypeId::of::<u64>(), [StreamId::new("a").unwrap()].iter(), &[]),
        ];
        for (n, key) in keys.iter().enumerate() {
            assert!(keys.iter().skip(n + 1).all(|other| other != key), "{n} is not the only one");
        }
        assert_eq!(of(&["a", "b"], &[]), keys[0]);
    }
}
