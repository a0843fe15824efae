//! A list that only grows and never moves what is in it.

use std::ops::Index;

/// Items in segments of one size. A vector would move all of them whenever it is full, and keep up to half of its room empty.
pub(crate) struct Segments<T> {
    /// All are full but the last one.
    segments: Vec<Vec<T>>,
}

/// How many items a segment has; a power of two.
const SEGMENT: usize = 1_024;

impl<T> Default for Segments<T> {
    fn default() -> Self {
        Self { segments: Vec::new() }
    }
}

impl<T> Segments<T> {
    pub(crate) fn len(&self) -> usize {
        match self.segments.split_last() {
            Some((last, full)) => full.len() * SEGMENT + last.len(),
            None => 0,
        }
    }

    pub(crate) fn get(&self, index: usize) -> Option<&T> {
        self.segments.get(index / SEGMENT)?.get(index % SEGMENT)
    }

    pub(crate) fn last(&self) -> Option<&T> {
        self.segments.last()?.last()
    }

    /// The items from `start` on.
    pub(crate) fn iter_from(&self, start: usize) -> impl Iterator<Item = &T> {
        let segments = self.segments.get(start / SEGMENT..).unwrap_or_default();
        segments.iter().flatten().skip(start % SEGMENT)
    }

    pub(crate) fn push(&mut self, item: T) {
        match self.segments.last_mut().filter(|last| last.len() < SEGMENT) {
            Some(last) => last.push(item),
            None => {
                // The first one grows by itself, since most stores of tests hold a few events.
                let room = if self.segments.is_empty() { 0 } else { SEGMENT };
                let mut segment = Vec::with_capacity(room);
                segment.push(item);
                self.segments.push(segment);
            }
        }
    }
}

impl<T> Index<usize> for Segments<T> {
    type Output = T;

    fn index(&self, index: usize) -> &T {
        &self.segments[index / SEGMENT][index % SEGMENT]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_are_where_they_were_put() {
        let mut segments = Segments::default();
        assert_eq!((segments.len(), segments.last(), segments.get(0)), (0, None, None));
        for number in 0..2 * SEGMENT + 1 {
            segments.push(number);
            assert_eq!((segments.len(), segments.last()), (number + 1, Some(&number)));
        }
        for start in [0, 1, SEGMENT - 1, SEGMENT, SEGMENT + 1, 2 * SEGMENT, 2 * SEGMENT + 1, 9 * SEGMENT] {
            assert!(segments.iter_from(start).copied().eq(start..2 * SEGMENT + 1), "from {start}");
            assert_eq!(segments.get(start).copied(), Some(start).filter(|start| *start <= 2 * SEGMENT));
        }
    }
}
