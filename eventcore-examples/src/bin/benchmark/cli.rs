//! The command line.

use clap::{Parser, ValueEnum};
use eventcore_examples::StoreUrl;
use std::num::{NonZeroU32, NonZeroUsize};
use std::path::PathBuf;
use std::time::Duration;

const EXAMPLES: &str = "\
Examples:
  benchmark                                         everything, in memory
  benchmark w1 w5 --store sqlite:/tmp/bench.db      two workloads on SQLite; the file must not exist, and is removed
  benchmark all --store postgres://.. --runs 3 --json > figures.json
  benchmark import --input transactions.csv --store sqlite:/tmp/bench.db
  benchmark w9 --store sqlite:/tmp/bench.db --sizes 100000,1000000,10000000 --plot growth.svg

Each figure stands beside the limit: what hand-written code on the raw driver did with the same rows, in the same run. Compare
ratios; the figures themselves tell more about the machine and what else it did.

On PostgreSQL the schemas eventcore_benchmark and eventcore_benchmark_raw are dropped and made again.

Exit status:
  0    measured, and every check held
  1    it could not be measured, or a check failed; standard error says why
  2    the command line is wrong
  130  stopped by Ctrl-C; what was measured until then is printed";

/// Measures EventCore on a store, beside the limit of the storage below it.
#[derive(Debug, Parser)]
#[command(name = "benchmark", version, after_help = EXAMPLES)]
pub(crate) struct Cli {
    /// What to measure [default: all]
    #[arg(value_enum, value_name = "WORKLOAD", ignore_case = true)]
    pub(crate) workloads: Vec<Choice>,
    /// Where events are kept: memory, sqlite:PATH or postgres://USER:PASSWORD@HOST/DATABASE
    #[arg(long, value_name = "URL", default_value = "memory")]
    pub(crate) store: StoreUrl,
    /// How many callers at the same time, for workloads that have callers
    #[arg(long, value_name = "N,..", value_delimiter = ',', default_value = "1,8,64")]
    pub(crate) concurrency: Vec<NonZeroUsize>,
    /// How long each measurement takes; the limit takes as long again
    #[arg(long, value_name = "S", default_value = "3", value_parser = seconds)]
    pub(crate) seconds: Duration,
    /// How often everything is measured; the table shows the median by throughput
    #[arg(long, value_name = "N", default_value = "1")]
    pub(crate) runs: NonZeroU32,
    /// How many events W5 projects
    #[arg(long, value_name = "N", default_value = "200000")]
    pub(crate) events: NonZeroU32,
    /// How many events are in the stores of W9, in rising order; W10 takes the last
    #[arg(long, value_name = "N,..", value_delimiter = ',', default_value = "10000,100000")]
    pub(crate) sizes: Vec<NonZeroU32>,
    /// Measures the library alone, for a profile of it
    #[arg(long)]
    pub(crate) without_limits: bool,
    /// The file that the bank imports; see `bank import --help`
    #[arg(long, value_name = "FILE", required_if_eq("workloads", "import"))]
    pub(crate) input: Option<PathBuf>,
    /// Prints every run as JSON on standard output instead of the table
    #[arg(long)]
    pub(crate) json: bool,
    /// Also writes every run as JSON to a file
    #[arg(long, value_name = "FILE")]
    pub(crate) save: Option<PathBuf>,
    /// Draws the figures as an SVG
    #[arg(long, value_name = "FILE")]
    pub(crate) plot: Option<PathBuf>,
    /// Writes to the store that there is until it is killed: the other process of W10
    #[arg(long, hide = true)]
    pub(crate) write_until_killed: bool,
}

/// What can be measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum Choice {
    /// Everything
    All,
    /// Deposits into 10,000 accounts: read, decide, append
    W1,
    /// Transfers between 1,000 accounts, two streams each
    W2,
    /// 16 writers on one stream
    W3,
    /// Bulk appends of 1 and of 100 events
    W4,
    /// A projection of the whole log into a map
    W5,
    /// From the answer to an append until a projector applied it
    W6,
    /// One stream of 10,000 events loaded into state
    W7,
    /// A follower that must not miss an event, while 16 writers write
    W8,
    /// Growth: deposits, projection and load in stores of different sizes
    W9,
    /// Opening a store after SIGKILL, to the first command; not in memory
    W10,
    /// 64 stores with one caller each; PostgreSQL alone
    W11,
    /// What 100 projections and 1,000 subscriptions cost that wait, for ten times as long as another measurement
    Idle,
    /// The bank's import of the file that --input names; left out without it
    Import,
}

impl Choice {
    /// The workloads that were asked for, each once, in order.
    pub(crate) fn resolve(chosen: &[Self]) -> Vec<Self> {
        let mut workloads = if chosen.is_empty() || chosen.contains(&Self::All) {
            Self::value_variants().iter().copied().filter(|choice| *choice != Self::All).collect()
        } else {
            chosen.to_vec()
        };
        workloads.sort();
        workloads.dedup();
        workloads
    }
}

fn seconds(text: &str) -> Result<Duration, String> {
    match text.parse::<f64>() {
        Ok(seconds) if (0.05..=3_600.0).contains(&seconds) => Ok(Duration::from_secs_f64(seconds)),
        _ => Err("expected a number of seconds from 0.05 to 3600".to_owned()),
    }
}
