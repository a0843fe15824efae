//! Finding events without looking at all of them.

use crate::segments::Segments;
use eventcore::{EventType, RecordedEvent};
use std::cmp::Reverse;
use std::collections::binary_heap::PeekMut;
use std::collections::{BinaryHeap, HashMap};
use std::sync::{Mutex, PoisonError};

/// Which events have a type. Readers bring it up to date, so that appends do not pay for it.
#[derive(Default)]
pub(crate) struct TypeIndex(Mutex<ByType>);

/// The indexes of the events of each type, as far as they were examined.
#[derive(Default)]
pub(crate) struct ByType {
    /// Where the types stand in `types`.
    slots: HashMap<EventType, usize>,
    types: Vec<Vec<usize>>,
    /// The type looked up last: mostly the next event has the same.
    last: Option<(EventType, usize)>,
    examined: usize,
}

impl TypeIndex {
    /// Reads the index of exactly `events`, to which events have only been added since the last call.
    pub(crate) fn with<T>(&self, events: &Segments<RecordedEvent>, read: impl FnOnce(&ByType) -> T) -> T {
        let mut index = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        index.extend(events);
        read(&index)
    }
}

impl ByType {
    /// The indexes of the events of a type, in order.
    pub(crate) fn of(&self, event_type: &EventType) -> &[usize] {
        self.slots.get(event_type).map_or(&[], |&slot| &self.types[slot])
    }

    fn extend(&mut self, events: &Segments<RecordedEvent>) {
        for event in events.iter_from(self.examined) {
            let slot = self.slot(event.event_type());
            self.types[slot].push(self.examined);
            self.examined += 1;
        }
    }

    fn slot(&mut self, event_type: &EventType) -> usize {
        if let Some((_, slot)) = self.last.as_ref().filter(|(last, _)| last == event_type) {
            return *slot;
        }
        let slot = self.slots.get(event_type).copied().unwrap_or_else(|| {
            self.slots.insert(event_type.clone(), self.types.len());
            self.types.push(Vec::new());
            self.types.len() - 1
        });
        self.last = Some((event_type.clone(), slot));
        slot
    }
}

/// Several rising lists as one.
pub(crate) struct Merged<'a> {
    /// What is left of the list whose head is the lowest number; empty at the end.
    lowest: &'a [usize],
    /// What is left of the others, none of them empty. Slices are compared by their heads first, and no number is in two.
    others: BinaryHeap<Reverse<&'a [usize]>>,
}

impl<'a> Merged<'a> {
    /// The numbers from `start` on. No number is in two of the lists.
    pub(crate) fn from(start: usize, lists: impl Iterator<Item = &'a [usize]>) -> Self {
        let rest = lists.map(|list| &list[list.partition_point(|&number| number < start)..]);
        let mut others: BinaryHeap<_> = rest.filter(|list| !list.is_empty()).map(Reverse).collect();
        let lowest = others.pop().map_or(&[][..], |Reverse(list)| list);
        Self { lowest, others }
    }

    /// How many numbers are left.
    pub(crate) fn len(&self) -> usize {
        self.lowest.len() + self.others.iter().map(|Reverse(list)| list.len()).sum::<usize>()
    }
}

impl Iterator for Merged<'_> {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        let (&number, rest) = self.lowest.split_first()?;
        self.lowest = rest;
        // Whoever is lowest now goes on; with one list that is always the same.
        let Some(mut other) = self.others.peek_mut() else { return Some(number) };
        if self.lowest.is_empty() {
            self.lowest = PeekMut::pop(other).0;
        } else if other.0.first() < self.lowest.first() {
            std::mem::swap(&mut other.0, &mut self.lowest);
        }
        Some(number)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.len(), Some(self.len()))
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
