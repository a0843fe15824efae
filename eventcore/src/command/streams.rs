//! The streams a command may read and write, as handles that only the library makes.

use crate::store::MANY_STREAMS;
use crate::{StreamId, StreamName, ValidationError};
use std::collections::HashMap;
use std::fmt;
use std::marker::PhantomData;

/// A stream that command `C` may append to.
///
/// It cannot be made, cloned or kept outside of the library, so an append to a stream that the command did not declare
/// does not compile.
pub struct StreamHandle<C> {
    stream_id: StreamId,
    command: PhantomData<fn() -> C>,
}

/// A stream that command `C` only reads. It has no append.
pub struct ReadHandle<C> {
    stream_id: StreamId,
    command: PhantomData<fn() -> C>,
}

macro_rules! handle_impls {
    ($handle:ident) => {
        impl<C> $handle<C> {
            /// The stream's name.
            #[must_use]
            pub const fn stream_id(&self) -> &StreamId {
                &self.stream_id
            }
        }

        impl<C> fmt::Debug for $handle<C> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_tuple(stringify!($handle)).field(&self.stream_id).finish()
            }
        }
    };
}
handle_impls!(StreamHandle);
handle_impls!(ReadHandle);

/// Collects the streams of a command and hands out their handles.
///
/// Only the library makes one; [`Command::bind`](super::Command::bind) is given it. Two fields that name one stream are
/// one participant, and if one of them writes, it is written.
pub struct StreamBinder<C> {
    streams: Vec<BoundStream>,
    /// Where the streams are in `streams`, once there are [`MANY_STREAMS`].
    index: HashMap<StreamId, usize>,
    discovered: Discovered,
    command: PhantomData<fn() -> C>,
}

/// A stream of a command, and whether it may be appended to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BoundStream {
    pub(crate) stream_id: StreamId,
    pub(crate) writable: bool,
}

impl<C> StreamBinder<C> {
    /// A binder for one attempt, with the streams discovered before it.
    pub(crate) fn new(discovered: Discovered) -> Self {
        Self { streams: Vec::new(), index: HashMap::new(), discovered, command: PhantomData }
    }

    /// Declares a stream that is read and may be appended to.
    ///
    /// # Errors
    /// [`ValidationError`] if the value makes no valid stream name.
    pub fn write(&mut self, stream: &(impl StreamName + ?Sized)) -> Result<StreamHandle<C>, ValidationError> {
        let stream_id = stream.stream_id()?;
        self.add(stream_id.clone(), true);
        Ok(StreamHandle { stream_id, command: PhantomData })
    }

    /// Declares a stream that is only read. The append still checks that it did not change.
    ///
    /// # Errors
    /// [`ValidationError`] if the value makes no valid stream name.
    pub fn read(&mut self, stream: &(impl StreamName + ?Sized)) -> Result<ReadHandle<C>, ValidationError> {
        let stream_id = stream.stream_id()?;
        self.add(stream_id.clone(), false);
        Ok(ReadHandle { stream_id, command: PhantomData })
    }

    /// The handles of the streams that [`discover`](super::CommandLogic::discover) named.
    pub fn discovered(&mut self) -> DiscoveredStreams<C> {
        let discovered = std::mem::take(&mut self.discovered);
        let mut found = DiscoveredStreams { writable: Vec::new(), read_only: Vec::new() };
        for BoundStream { stream_id, writable } in discovered.streams {
            self.add(stream_id.clone(), writable);
            if writable {
                found.writable.push(StreamHandle { stream_id, command: PhantomData });
            } else {
                found.read_only.push(ReadHandle { stream_id, command: PhantomData });
            }
        }
        found
    }

    /// Every stream of the command, each once; those discovered are included even if the command took no handles for them.
    pub(crate) fn into_streams(mut self) -> Vec<BoundStream> {
        self.discovered();
        self.streams
    }

    fn add(&mut self, stream_id: StreamId, writable: bool) {
        let index = self.streams.len();
        let found = match index < MANY_STREAMS {
            true => self.streams.iter().position(|stream| stream.stream_id == stream_id),
            false => self.index.get(&stream_id).copied(),
        };
        if let Some(stream) = found.and_then(|found| self.streams.get_mut(found)) {
            stream.writable |= writable;
            return;
        }
        if index + 1 == MANY_STREAMS {
            self.index = self.streams.iter().map(|stream| stream.stream_id.clone()).zip(0..).collect();
        }
        if index + 1 >= MANY_STREAMS {
            self.index.insert(stream_id.clone(), index);
        }
        self.streams.push(BoundStream { stream_id, writable });
    }
}

/// Further streams that a command needs, as its state shows.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Discovered {
    pub(crate) streams: Vec<BoundStream>,
}

impl Discovered {
    /// No further streams.
    #[must_use]
    pub const fn none() -> Self {
        Self { streams: Vec::new() }
    }

    /// Also a stream that is read and may be appended to.
    #[must_use]
    pub fn write(mut self, stream_id: StreamId) -> Self {
        self.streams.push(BoundStream { stream_id, writable: true });
        self
    }

    /// Also a stream that is only read.
    #[must_use]
    pub fn read(mut self, stream_id: StreamId) -> Self {
        self.streams.push(BoundStream { stream_id, writable: false });
        self
    }
}

/// The handles of streams that were discovered while the command ran, in the order in which they were named.
pub struct DiscoveredStreams<C> {
    writable: Vec<StreamHandle<C>>,
    read_only: Vec<ReadHandle<C>>,
}

/// Not derived, since that would ask `C` to be `Debug`.
impl<C> fmt::Debug for DiscoveredStreams<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DiscoveredStreams")
            .field("writable", &self.writable)
            .field("read_only", &self.read_only)
            .finish()
    }
}

impl<C> DiscoveredStreams<C> {
    /// Those that may be appended to.
    #[must_use]
    pub fn writable(&self) -> &[StreamHandle<C>] {
        &self.writable
    }

    /// Those that are only read.
    #[must_use]
    pub fn read_only(&self) -> &[ReadHandle<C>] {
        &self.read_only
    }

    /// The handle of one that may be appended to.
    #[must_use]
    pub fn get(&self, stream_id: &StreamId) -> Option<&StreamHandle<C>> {
        self.writable.iter().find(|handle| handle.stream_id() == stream_id)
    }
}
