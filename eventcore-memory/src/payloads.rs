//! Payloads side by side.

use bytes::BytesMut;
use eventcore::Payload;

/// How many bytes are allocated at once, in a store that has only just begun and later.
const FIRST_CHUNK: usize = 4 * 1024;
const CHUNK: usize = 64 * 1024;
/// A larger payload stays where it is.
const MAX_COPIED: usize = FIRST_CHUNK;

/// Copies payloads into chunks that they share. A payload of its own would take two allocations as soon as it is shared, for
/// its bytes and for their counter, and whoever reads events one after the other would find each of both somewhere else.
///
/// A payload that a reader holds keeps its whole chunk in memory, even when the store is gone.
#[derive(Default)]
pub(crate) struct Payloads {
    /// What is left of the chunk in use.
    chunk: BytesMut,
    /// How large it was.
    size: usize,
}

impl Payloads {
    /// The same payload, shared with the log.
    pub(crate) fn keep(&mut self, payload: &Payload) -> Payload {
        let bytes = payload.bytes();
        if bytes.len() > MAX_COPIED {
            return payload.clone();
        }
        if self.chunk.capacity() < bytes.len() {
            self.size = (2 * self.size).clamp(FIRST_CHUNK, CHUNK);
            self.chunk = BytesMut::with_capacity(self.size);
        }
        self.chunk.extend_from_slice(bytes);
        Payload::new(payload.content_type(), self.chunk.split().freeze())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn payloads_of_all_sizes_are_kept_as_they_are() {
        let mut payloads = Payloads::default();
        let sizes = [0, 1, 200, MAX_COPIED - 1, MAX_COPIED, MAX_COPIED + 1, CHUNK, 2 * CHUNK];
        let given: Vec<Payload> = (0..200)
            .map(|n| Payload::json(vec![n as u8; sizes[n % sizes.len()]]))
            .chain([Payload::binary("b")])
            .collect();
        let kept: Vec<Payload> = given.iter().map(|payload| payloads.keep(payload)).collect();
        assert_eq!(kept, given);
    }
}
