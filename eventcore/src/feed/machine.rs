//! The feed as a pure machine: from history to live and back, without gap or duplicate.

use crate::{GlobalPosition, LogCursor};
use std::collections::VecDeque;

/// What to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FeedEffect<T> {
    /// Ask for the head of the log. Answer: [`Head`](FeedInput::Head).
    Head,
    /// Make sure that the log still holds this event. Answer: [`Verified`](FeedInput::Verified).
    Verify(LogCursor),
    /// Read a page. Answer: [`Page`](FeedInput::Page).
    Read {
        /// After which position.
        after: Option<GlobalPosition>,
    },
    /// Wait for a wake-up, or look again after a while. Answer: [`Woken`](FeedInput::Woken).
    Wait,
    /// Hand an event to the consumer. Answer, when it asks for more: [`Next`](FeedInput::Next).
    Event(T),
    /// Tell the consumer that it has seen everything there was. Answer: [`Next`](FeedInput::Next).
    CaughtUp,
    /// Tell the consumer that the log grew faster than it followed. Answer: [`Next`](FeedInput::Next).
    FellBehind,
}

/// The result of an effect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FeedInput<T> {
    /// The consumer asks for something. Also the first input.
    Next,
    /// The head of the log.
    Head(Option<GlobalPosition>),
    /// The log holds the event.
    Verified,
    /// A page: its events, how far it looked, and whether the next one should be read at once.
    Page(Vec<T>, Option<LogCursor>, bool),
    /// The wait is over.
    Woken,
    /// An effect failed. The consumer is told; when it asks again, the feed goes on where it was.
    Failed,
}

/// The machine of one follower. `T` is an event; the machine only passes it on.
#[derive(Debug)]
pub struct FeedMachine<T> {
    /// Where to begin, as long as that is the end of the log and the log has not been asked.
    from_end: bool,
    after: Option<GlobalPosition>,
    /// The cursor whose event has to be seen again before anything is read.
    verify: Option<LogCursor>,
    /// The last event looked at, for the next time that it has to be verified.
    cursor: Option<LogCursor>,
    buffer: VecDeque<T>,
    /// Whether the page being delivered was full.
    more: bool,
    /// Whether a page has been read since the last wait.
    looked: bool,
    live: bool,
}

impl<T> FeedMachine<T> {
    /// A feed that begins after a position; `None` is the beginning.
    #[must_use]
    pub const fn after(after: Option<GlobalPosition>) -> Self {
        Self {
            from_end: false,
            after,
            verify: None,
            cursor: None,
            buffer: VecDeque::new(),
            more: true,
            looked: false,
            live: false,
        }
    }

    /// A feed that begins behind what is in the log when it is first asked.
    #[must_use]
    pub const fn from_end() -> Self {
        let mut machine = Self::after(None);
        machine.from_end = true;
        machine
    }

    /// A feed that begins behind an event, once that was found to be there.
    #[must_use]
    pub const fn behind(cursor: LogCursor) -> Self {
        let mut machine = Self::after(Some(cursor.position));
        machine.verify = Some(cursor);
        machine.cursor = Some(cursor);
        machine
    }

    /// Whether everything there was has been handed out.
    #[must_use]
    pub const fn is_live(&self) -> bool {
        self.live
    }

    /// Goes on with the result of the last effect.
    pub fn step(&mut self, input: FeedInput<T>) -> FeedEffect<T> {
        match input {
            FeedInput::Next => {}
            FeedInput::Head(head) => {
                self.from_end = false;
                self.after = head;
            }
            FeedInput::Verified => self.verify = None,
            FeedInput::Page(events, cursor, more) => {
                self.buffer.extend(events);
                self.more = more;
                self.looked = true;
                if let Some(cursor) = cursor {
                    self.after = Some(cursor.position);
                    self.cursor = Some(cursor);
                }
                if more && self.live {
                    self.live = false;
                    return FeedEffect::FellBehind;
                }
            }
            FeedInput::Woken => self.looked = false,
            // Whoever answers next may be another server.
            FeedInput::Failed => self.verify = self.cursor,
        }
        self.next()
    }

    fn next(&mut self) -> FeedEffect<T> {
        if let Some(event) = self.buffer.pop_front() {
            return FeedEffect::Event(event);
        }
        if let Some(cursor) = self.verify {
            return FeedEffect::Verify(cursor);
        }
        if self.from_end {
            return FeedEffect::Head;
        }
        if self.more || !self.looked {
            return FeedEffect::Read { after: self.after };
        }
        if !self.live {
            self.live = true;
            return FeedEffect::CaughtUp;
        }
        FeedEffect::Wait
    }
}
