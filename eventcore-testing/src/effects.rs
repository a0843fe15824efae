//! Effects outside of the store, which outlive the process that had them.

use eventcore::{Epoch, GlobalPosition};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;

/// A file in which a projector notes every event that it applies: for tests that kill its process, and then look at which
/// events had their effect and how often.
///
/// ```
/// use eventcore::{Epoch, GlobalPosition};
/// use eventcore_testing::{EffectLog, Effects};
///
/// let path = std::env::temp_dir().join(format!("effects-{}", std::process::id()));
/// let mut log = EffectLog::open(&path)?;
/// log.begin(Epoch::new(1))?;
/// log.note(GlobalPosition::try_new(1)?)?;
/// log.begin(Epoch::new(2))?;
/// log.note(GlobalPosition::try_new(1)?)?;
/// log.note(GlobalPosition::try_new(2)?)?;
/// let effects = Effects::read(&path)?;
/// assert_eq!((effects.runs(), effects.positions().count()), (2, 2));
/// assert_eq!((effects.repeats(), effects.most_repeats_of_a_run()), (1, 1));
/// std::fs::remove_file(path)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct EffectLog(File);

impl EffectLog {
    /// Goes on with a file, or begins it.
    ///
    /// # Errors
    /// What the system says.
    pub fn open(path: impl AsRef<Path>) -> io::Result<Self> {
        OpenOptions::new().append(true).create(true).open(path).map(Self)
    }

    /// Notes that a run of the projection begins: for [`Projector::leading`](eventcore::Projector::leading).
    ///
    /// # Errors
    /// What the system says.
    pub fn begin(&mut self, epoch: Epoch) -> io::Result<()> {
        self.line(&format!("run {epoch}"))
    }

    /// Notes that an event was applied.
    ///
    /// # Errors
    /// What the system says.
    pub fn note(&mut self, position: GlobalPosition) -> io::Result<()> {
        self.line(&position.to_string())
    }

    /// One write for a line, which begins with the line's end: what a kill cut off does not spoil the next one. The full
    /// stop tells whether it is whole.
    fn line(&mut self, text: &str) -> io::Result<()> {
        self.0.write_all(format!("\n{text}.").as_bytes())
    }
}

/// What stands in an [`EffectLog`].
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Effects {
    /// How often each event was applied.
    times: BTreeMap<u64, u32>,
    runs: u32,
    repeats: u32,
    most_repeats: u32,
}

impl Effects {
    /// Reads a file.
    ///
    /// # Errors
    /// What the system says.
    pub fn read(path: impl AsRef<Path>) -> io::Result<Self> {
        let mut effects = Self::default();
        let mut repeats_of_run = 0;
        for line in fs::read_to_string(path)?.lines().filter_map(|line| line.strip_suffix('.')) {
            let Ok(position) = line.parse() else {
                effects.runs += 1;
                repeats_of_run = 0;
                continue;
            };
            let times = effects.times.entry(position).or_default();
            *times += 1;
            if *times > 1 {
                repeats_of_run += 1;
                effects.repeats += 1;
                effects.most_repeats = effects.most_repeats.max(repeats_of_run);
            }
        }
        Ok(effects)
    }

    /// The positions of all events that were applied, once or more often.
    pub fn positions(&self) -> impl Iterator<Item = u64> {
        self.times.keys().copied()
    }

    /// Which of these events were never applied.
    #[must_use]
    pub fn missing_of(&self, positions: impl IntoIterator<Item = u64>) -> BTreeSet<u64> {
        positions.into_iter().filter(|position| !self.times.contains_key(position)).collect()
    }

    /// How many runs there were.
    #[must_use]
    pub const fn runs(&self) -> u32 {
        self.runs
    }

    /// How often an event was applied again, over all.
    #[must_use]
    pub const fn repeats(&self) -> u32 {
        self.repeats
    }

    /// How often an event was applied again in the run in which that happened most often.
    #[must_use]
    pub const fn most_repeats_of_a_run(&self) -> u32 {
        self.most_repeats
    }
}
