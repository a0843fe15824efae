//! Long streams, which two threads read side by side.

use crate::decode::event_columns;
use crate::error::store_error;
use crate::read::{Reader, follows};
use eventcore::{EventStoreError, RecordedEvent, StreamId, StreamVersion};

const SELECT: &str = concat!(
    "select ",
    event_columns!(),
    " from eventcore_streams s cross join eventcore_events e on e.stream = s.id \
     where s.name = ?1 and e.version > ?2 and e.version <= ?3 order by e.version"
);

/// Events that a stream had at some moment. They never change, so whenever they are read, they are as of that moment.
pub(crate) struct Stretch {
    pub(crate) stream_id: StreamId,
    pub(crate) after: StreamVersion,
    pub(crate) until: StreamVersion,
}

impl Stretch {
    /// So many events are worth two threads. Handing over to them costs about as much as reading a few hundred.
    pub(crate) const WORTH_TWO: usize = 4_096;

    /// The older half and the younger one.
    pub(crate) fn halves(self) -> Result<(Self, Self), EventStoreError> {
        let middle = self.after.get() + (self.until.get() - self.after.get()) / 2;
        let middle = StreamVersion::try_new(middle).map_err(EventStoreError::storage)?;
        let older = Self { stream_id: self.stream_id.clone(), until: middle, ..self };
        Ok((older, Self { after: middle, ..self }))
    }
}

impl Reader {
    pub(crate) fn read_stretch(&mut self, stretch: &Stretch) -> Result<Vec<RecordedEvent>, EventStoreError> {
        let Stretch { stream_id, after, until } = stretch;
        let count = until.get().saturating_sub(after.get());
        let mut events = Vec::with_capacity(usize::try_from(count).unwrap_or_default());
        let Self { connection, names } = self;
        let mut select = connection.prepare_cached(SELECT).map_err(store_error)?;
        let mut rows = select.query((stream_id.as_str(), after.get(), until.get())).map_err(store_error)?;
        let mut version = *after;
        while let Some(row) = rows.next().map_err(store_error)? {
            let event = names.event_of(stream_id, connection, row)?;
            version = follows(version, event.version())?;
            events.push(event);
        }
        if version != *until {
            let what = format!("version {} of a stream: it is missing", version.get() + 1);
            return Err(EventStoreError::corrupt(what));
        }
        Ok(events)
    }
}
