//! A buffer for each thread, to write payloads in whose size is not known before.

use std::cell::Cell;

/// A larger buffer is not kept, so that one large event does not occupy memory for ever.
const MAX_KEPT_BYTES: usize = 64 * 1024;

thread_local! {
    static BUFFER: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// Lends an empty buffer. Whoever asks for one meanwhile, as the `Serialize` of an event might, gets another.
pub(super) fn with_buffer<T>(write: impl FnOnce(&mut Vec<u8>) -> T) -> T {
    // A thread that is ending has none any more.
    let mut buffer = BUFFER.try_with(Cell::take).unwrap_or_default();
    buffer.clear();
    let result = write(&mut buffer);
    if buffer.capacity() <= MAX_KEPT_BYTES {
        let _ = BUFFER.try_with(|kept| kept.set(buffer));
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_is_empty_and_keeps_its_room() {
        with_buffer(|buffer| buffer.extend_from_slice(&[1; 1_000]));
        with_buffer(|buffer| {
            assert!(buffer.is_empty());
            assert!(buffer.capacity() >= 1_000);
        });
    }

    #[test]
    fn a_buffer_within_another_is_one_of_its_own() {
        with_buffer(|outer| {
            outer.push(1);
            with_buffer(|inner| {
                assert!(inner.is_empty());
                inner.push(2);
            });
            assert_eq!(outer, &[1]);
        });
    }

    #[test]
    fn a_large_buffer_is_not_kept() {
        with_buffer(|buffer| buffer.reserve(MAX_KEPT_BYTES + 1));
        with_buffer(|buffer| assert!(buffer.capacity() <= MAX_KEPT_BYTES));
    }
}
