//! Finding events without looking at all of them.

use eventcore::{EventType, RecordedEvent};
use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::sync::{Mutex, PoisonError};

/// Which events have a type. Readers bring it up to date, so that appends do not pay for it.
#[derive(Default)]
pub(crate) struct TypeIndex(Mutex<ByType>);

/// The indexes of the events of each type, as far as they were examined.
#[derive(Default)]
pub(crate) struct ByType {
    types: HashMap<EventType, Vec<usize>>,
    examined: usize,
}

impl TypeIndex {
    /// Reads the index of exactly `events`, to which events have only been added since the last call.
    pub(crate) fn with<T>(&self, events: &[RecordedEvent], read: impl FnOnce(&ByType) -> T) -> T {
        let mut index = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        index.extend(events);
        read(&index)
    }
}

impl ByType {
    /// The indexes of the events of a type, in order.
    pub(crate) fn of(&self, event_type: &EventType) -> &[usize] {
        self.types.get(event_type).map_or(&[], Vec::as_slice)
    }

    fn extend(&mut self, events: &[RecordedEvent]) {
        for (index, event) in events.iter().enumerate().skip(self.examined) {
            match self.types.get_mut(event.event_type()) {
                Some(indexes) => indexes.push(index),
                None => drop(self.types.insert(event.event_type().clone(), vec![index])),
            }
        }
        self.examined = events.len();
    }
}

/// Several rising lists as one.
pub(crate) struct Merged<'a> {
    heads: BinaryHeap<Reverse<(usize, usize)>>,
    /// What is left of each list, its head included.
    rest: Vec<&'a [usize]>,
}

impl<'a> Merged<'a> {
    /// The numbers from `start` on. No number is in two of the lists.
    pub(crate) fn from(start: usize, lists: impl Iterator<Item = &'a [usize]>) -> Self {
        let rest: Vec<_> = lists.map(|list| &list[list.partition_point(|&number| number < start)..]).collect();
        let heads = rest.iter().enumerate().filter_map(|(at, list)| Some(Reverse((*list.first()?, at)))).collect();
        Self { heads, rest }
    }

    /// How many numbers are left.
    pub(crate) fn len(&self) -> usize {
        self.rest.iter().map(|list| list.len()).sum()
    }
}

impl Iterator for Merged<'_> {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        let Reverse((number, at)) = self.heads.pop()?;
        let rest = &self.rest[at][1..];
        self.rest[at] = rest;
        if let Some(&next) = rest.first() {
            self.heads.push(Reverse((next, at)));
        }
        Some(number)
    }
}

#[cfg(test)]
mod tests {
    use super::Merged;

    #[test]
    fn lists_are_merged_in_order_from_the_start_asked_for() {
        let lists: [&[usize]; 4] = [&[0, 3, 9], &[], &[1, 4, 5], &[2]];
        let merged = Merged::from(2, lists.into_iter());
        assert_eq!(merged.len(), 5);
        assert_eq!(merged.collect::<Vec<_>>(), [2, 3, 4, 5, 9]);
    }
}
