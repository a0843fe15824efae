//! Telling cheaply that nobody has committed.

use crate::connection::write_ahead_log;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

/// Whether the write-ahead log is still. Every commit is written there before it counts, so while the file looks the same there
/// is nothing new. To look at it takes one system call, to ask SQLite a statement and two locks of the file.
pub(crate) struct StillLog {
    path: PathBuf,
    looked: Option<Look>,
    /// When it was last seen to have changed.
    changed: Option<Instant>,
    /// When it was last said not to be still.
    asked: Option<Instant>,
}

/// What the system tells of the file; `None` if it tells nothing that can be relied on.
type Look = (u64, SystemTime);

impl StillLog {
    /// A log that has changed is not still for so long. What is written counts only after its sync, and some systems tell the
    /// time of a change in steps of 2 s, within which a later change looks the same.
    const SETTLES: Duration = Duration::from_secs(3);
    /// It is never said to be still for longer than this: for the sync that takes longer than a log settles, and the clock
    /// that was set back.
    const AT_MOST: Duration = Duration::from_secs(1);

    /// The log of the database at `path`.
    pub(crate) fn of(path: &Path) -> Self {
        Self { path: write_ahead_log(path), looked: None, changed: None, asked: None }
    }

    /// Whether there is no need to ask SQLite `now`. Who is told that there is asks after that.
    pub(crate) fn is_still(&mut self, now: Instant) -> bool {
        let look = look(&self.path);
        self.judge(look, now)
    }

    fn judge(&mut self, look: Option<Look>, now: Instant) -> bool {
        if look.is_none() || look != self.looked {
            (self.looked, self.changed) = (look, Some(now));
        }
        let within = |since: Option<Instant>, time| since.is_some_and(|since| now.duration_since(since) < time);
        let still = !within(self.changed, Self::SETTLES) && within(self.asked, Self::AT_MOST);
        if !still {
            self.asked = Some(now);
        }
        still
    }
}

#[cfg(unix)]
fn look(path: &Path) -> Option<Look> {
    let log = path.metadata().ok()?;
    Some((log.len(), log.modified().ok()?))
}

/// Elsewhere the time of a change may be told when the file is closed.
#[cfg(not(unix))]
fn look(_: &Path) -> Option<Look> {
    None
}

#[cfg(test)]
mod tests {
    use super::{Duration, Instant, Look, Path, StillLog, SystemTime};

    const FIRST: Option<Look> = Some((100, SystemTime::UNIX_EPOCH));
    const LONGER: Option<Look> = Some((200, SystemTime::UNIX_EPOCH));

    /// Looks at it every 20 ms for so long; tells how often it was not still.
    fn asks(log: &mut StillLog, look: Option<Look>, now: &mut Instant, time: Duration) -> usize {
        let rounds = time.as_millis() / 20;
        (0..rounds)
            .filter(|_| {
                *now += Duration::from_millis(20);
                !log.judge(look, *now)
            })
            .count()
    }

    #[test]
    fn a_log_that_nobody_writes_is_asked_for_once_a_second() {
        let (mut log, mut now) = (StillLog::of(Path::new("any")), Instant::now());
        assert_eq!(asks(&mut log, FIRST, &mut now, StillLog::SETTLES), 150, "it may have changed again unseen");
        assert_eq!(asks(&mut log, FIRST, &mut now, Duration::from_secs(10)), 10);
    }

    #[test]
    fn a_log_that_has_changed_is_asked_for_at_once_and_until_it_has_settled() {
        let (mut log, mut now) = (StillLog::of(Path::new("any")), Instant::now());
        asks(&mut log, FIRST, &mut now, Duration::from_secs(10));
        assert_eq!(asks(&mut log, LONGER, &mut now, StillLog::SETTLES), 150);
        assert_eq!(asks(&mut log, LONGER, &mut now, Duration::from_secs(10)), 10);
    }

    #[test]
    fn a_log_of_which_the_system_tells_nothing_is_never_still() {
        let (mut log, mut now) = (StillLog::of(Path::new("any")), Instant::now());
        assert_eq!(asks(&mut log, None, &mut now, Duration::from_secs(10)), 500);
        assert!(!StillLog::of(Path::new("/nowhere/at/all")).is_still(now));
    }
}
