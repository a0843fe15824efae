//! States that an executor keeps in memory between executions.

use crate::StreamId;
use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use uuid::Uuid;

/// Which state a command would be decided on: its type, its streams in their order, and the event types it ignores.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct CacheKey {
    state: TypeId,
    digest: Uuid,
}

impl CacheKey {
    pub(super) fn new<'a>(
        state: TypeId,
        streams: impl Iterator<Item = &'a StreamId>,
        ignored: &[crate::EventType],
    ) -> Self {
        // Names are not empty and hold no control characters, so these separators cannot be mistaken.
        let mut text = String::new();
        for stream in streams {
            text.push_str(stream.as_str());
            text.push('\n');
        }
        for event_type in ignored {
            text.push('\n');
            text.push_str(event_type.as_str());
        }
        Self { state, digest: Uuid::new_v5(&Uuid::NAMESPACE_OID, text.as_bytes()) }
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

/// At most so many states, those used lately. When the younger half is full, it becomes the older one, which is forgotten:
/// what was used in the meantime has moved to the younger half.
pub(super) struct StateCache {
    half: usize,
    halves: Mutex<Halves>,
}

#[derive(Default)]
struct Halves {
    younger: HashMap<CacheKey, CachedState>,
    older: HashMap<CacheKey, CachedState>,
}

impl StateCache {
    pub(super) fn new(states: usize) -> Self {
        Self { half: states.div_ceil(2).max(1), halves: Mutex::default() }
    }

    pub(super) fn get(&self, key: &CacheKey) -> Option<CachedState> {
        let mut halves = self.halves();
        if let Some(state) = halves.younger.get(key) {
            return Some(state.clone());
        }
        let state = halves.older.remove(key)?;
        self.insert(&mut halves, *key, state.clone());
        Some(state)
    }

    pub(super) fn put(&self, key: CacheKey, state: CachedState) {
        let mut halves = self.halves();
        halves.older.remove(&key);
        self.insert(&mut halves, key, state);
    }

    fn insert(&self, halves: &mut Halves, key: CacheKey, state: CachedState) {
        if halves.younger.len() >= self.half && !halves.younger.contains_key(&key) {
            halves.older = std::mem::take(&mut halves.younger);
        }
        halves.younger.insert(key, state);
    }

    fn halves(&self) -> MutexGuard<'_, Halves> {
        self.halves.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test")]
mod tests {
    use super::*;

    #[test]
    fn it_holds_at_most_so_many_and_keeps_what_is_used() {
        let cache = StateCache::new(10);
        let key = |n: u32| {
            let stream = StreamId::new(format!("s{n}")).unwrap();
            CacheKey::new(TypeId::of::<u32>(), std::iter::once(&stream), &[])
        };
        for n in 0..1_000 {
            cache.put(key(n), CachedState(Arc::new(n)));
            assert!(cache.get(&key(0)).is_some(), "0 is used all the time, {n} is the last one");
            let halves = cache.halves();
            assert!(halves.younger.len() + halves.older.len() <= 10);
        }
        assert!(cache.get(&key(999)).is_some());
        assert!(cache.get(&key(500)).is_none());
    }
}
