//! Runs an import: one task reads, many execute.

use super::row::ACCOUNT_PREFIX;
use super::{Direction, ImportRow, ImportSummary, NumberedRow, RowError, RowReader, Statement};
use crate::bank::{AccountId, BankError, BankEvent, DailyBalances, Deposit, OpenAccount, Overdraft, Withdraw};
use eventcore::{
    Backend, CommandContext, CommandError, CommandExecutor, CommandId, CommandLogic, ErrorKind, EventFilter,
    EventStoreError, MaxAttempts, ProjectionConfig, ProjectionError, RetryPolicy, StreamPrefix, ValidationError,
    run_projection,
};
use std::collections::HashSet;
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
use std::io::{self, BufRead};
use std::num::NonZeroUsize;
use std::sync::Arc;
use thiserror::Error;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// How many rows wait for each worker at most.
const QUEUE: usize = 32;
/// The states of how many accounts are kept in memory, so that a row needs no read of its account.
const KEPT_ACCOUNTS: usize = 10_000;
/// How often progress is reported, in lines.
const PROGRESS_EVERY: u64 = 256;

/// How an import is run.
#[derive(Debug, Clone)]
pub struct ImportConfig {
    /// How many commands are in flight at most, each for another account. By default 256: so many share one commit.
    pub in_flight: NonZeroUsize,
    /// Cancelled to stop early: what is in flight is finished. An input that makes the reader wait, such as a pipe, is only
    /// left when its next line comes.
    pub stop: CancellationToken,
}

impl Default for ImportConfig {
    fn default() -> Self {
        Self { in_flight: NonZeroUsize::MIN.saturating_add(255), stop: CancellationToken::new() }
    }
}

/// Is told how an import goes on, from several threads.
pub trait ImportObserver: Send + Sync + 'static {
    /// So many bytes of the file have been read.
    fn progress(&self, bytes_read: u64);
    /// A line is no row.
    fn malformed(&self, line: u64, error: &RowError);
    /// The bank refused a row.
    fn rejected(&self, line: u64, row: &ImportRow, error: &CommandError<BankError>);
}

/// Why an import ended before its time. What was accepted until then is stored; run again, it goes on from there.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ImportError {
    /// The file cannot be read any further.
    #[error("reading failed after line {line}")]
    Read {
        /// The last line that was read.
        line: u64,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The store failed.
    #[error("line {line} could not be imported")]
    Command {
        /// The line in hand.
        line: u64,
        /// What happened.
        #[source]
        source: Box<CommandError<BankError>>,
    },
    /// The read model could not be built.
    #[error("the balances could not be read")]
    Projection(#[from] Box<ProjectionError<ValidationError>>),
    /// A name was refused.
    #[error("a name was refused")]
    Name(#[from] ValidationError),
    /// A task ended by a panic, which is a defect of this program.
    #[error("a task of the import failed")]
    Task(#[from] tokio::task::JoinError),
}

/// Imports all rows of `input`, and compares what the store says then with the balances that the rows print.
///
/// # Errors
/// [`ImportError`] for a failure of the file or the store. Malformed and refused rows are no errors: they are counted.
pub async fn run_import(
    backend: Arc<dyn Backend>,
    input: impl BufRead + Send + 'static,
    config: ImportConfig,
    observer: Arc<dyn ImportObserver>,
) -> Result<ImportSummary, ImportError> {
    // A failure stops the import, but must not look as if the caller had stopped it.
    let stop = config.stop.child_token();
    let mut workers = JoinSet::new();
    // Only a second import of the same file, running beside this one, can be in the way: it is worth waiting for.
    let retry = RetryPolicy::default().max_attempts(MaxAttempts::try_new(100).unwrap_or_default());
    let executor = CommandExecutor::new(Arc::clone(&backend)).retry(retry).state_cache(KEPT_ACCOUNTS);
    let queues = (0..config.in_flight.get())
        .map(|_| {
            let (queue, rows) = mpsc::channel(QUEUE);
            let worker = Worker::new(executor.clone(), Arc::clone(&observer), stop.clone());
            workers.spawn(worker.run(rows));
            queue
        })
        .collect();
    let reading = {
        let (stop, observer) = (stop.clone(), Arc::clone(&observer));
        tokio::task::spawn_blocking(move || distribute(input, queues, &stop, observer.as_ref()))
    };

    let mut tally = Tally::default();
    let mut failure = None;
    while let Some(worked) = workers.join_next().await {
        match worked.map_err(ImportError::from).flatten() {
            Ok(part) => tally.merge(part),
            Err(error) => {
                stop.cancel();
                failure.get_or_insert(error);
            }
        }
    }
    let read = reading.await?;
    if let Some(error) = failure {
        return Err(error);
    }
    let read = read?;

    let imported =
        EventFilter::of::<BankEvent>().stream_prefix(StreamPrefix::new(format!("account-{ACCOUNT_PREFIX}"))?);
    let daily = DailyBalances::new(imported);
    let daily = run_projection(daily, &backend, ProjectionConfig::default()).await.map_err(Box::new)?.projector;
    Ok(ImportSummary {
        accepted: tally.accepted,
        known: tally.known,
        rejected: tally.rejected,
        malformed: read.malformed,
        accounts: daily.accounts(),
        total_balance: daily.total(),
        matching: tally.statement.compare(&daily),
        interrupted: !read.to_the_end || tally.left_out,
    })
}

/// What the reading task found.
struct Read {
    malformed: u64,
    to_the_end: bool,
}

/// Reads the file and gives each row to the worker of its account. Waits while that worker's queue is full.
fn distribute(
    input: impl BufRead,
    queues: Vec<mpsc::Sender<(u64, ImportRow)>>,
    stop: &CancellationToken,
    observer: &dyn ImportObserver,
) -> Result<Read, ImportError> {
    let hasher = BuildHasherDefault::<DefaultHasher>::default();
    let mut rows = RowReader::new(input);
    let (mut malformed, mut last_line) = (0, 0);
    while let Some(read) = rows.next() {
        let NumberedRow { line, row } = read.map_err(|source| {
            stop.cancel();
            ImportError::Read { line: last_line, source }
        })?;
        last_line = line;
        if line.is_multiple_of(PROGRESS_EVERY) {
            observer.progress(rows.bytes_read());
        }
        match row {
            Err(error) => {
                malformed += 1;
                observer.malformed(line, &error);
            }
            Ok(row) => {
                let worker = hasher.hash_one(&row.account) as usize % queues.len();
                let sent = queues.get(worker).map(|queue| queue.blocking_send((line, row)));
                // A worker that is gone has failed, and says so itself.
                if !matches!(sent, Some(Ok(()))) {
                    return Ok(Read { malformed, to_the_end: false });
                }
            }
        }
        if stop.is_cancelled() {
            return Ok(Read { malformed, to_the_end: false });
        }
    }
    observer.progress(rows.bytes_read());
    Ok(Read { malformed, to_the_end: true })
}

/// What one worker did.
#[derive(Default)]
struct Tally {
    accepted: u64,
    known: u64,
    rejected: u64,
    statement: Statement,
    /// Whether rows were not executed because the import was stopped.
    left_out: bool,
}

impl Tally {
    fn merge(&mut self, other: Self) {
        self.accepted += other.accepted;
        self.known += other.known;
        self.rejected += other.rejected;
        self.statement.merge(other.statement);
        self.left_out |= other.left_out;
    }
}

/// Executes the rows of some accounts, one after the other.
struct Worker {
    executor: CommandExecutor<Arc<dyn Backend>>,
    observer: Arc<dyn ImportObserver>,
    stop: CancellationToken,
    opened: HashSet<AccountId>,
    tally: Tally,
}

impl Worker {
    fn new(
        executor: CommandExecutor<Arc<dyn Backend>>,
        observer: Arc<dyn ImportObserver>,
        stop: CancellationToken,
    ) -> Self {
        Self { executor, observer, stop, opened: HashSet::new(), tally: Tally::default() }
    }

    async fn run(mut self, mut rows: mpsc::Receiver<(u64, ImportRow)>) -> Result<Tally, ImportError> {
        while let Some((line, row)) = rows.recv().await {
            if self.stop.is_cancelled() {
                self.tally.left_out = true;
                break;
            }
            let imported = self.import(&row).await;
            self.tally.statement.note(&row);
            match imported {
                Ok(Effect::Now) => self.tally.accepted += 1,
                Ok(Effect::Earlier) => self.tally.known += 1,
                Err(error) if is_about_the_row(&error) => {
                    self.tally.rejected += 1;
                    self.observer.rejected(line, &row, &error);
                }
                Err(error) => {
                    self.stop.cancel();
                    return Err(ImportError::Command { line, source: Box::new(error) });
                }
            }
        }
        Ok(self.tally)
    }

    async fn import(&mut self, row: &ImportRow) -> Result<Effect, CommandError<BankError>> {
        if !self.opened.contains(&row.account) {
            self.open(&row.account).await?;
            self.opened.insert(row.account.clone());
        }
        let (account, booking, id) = (row.account.clone(), row.booking.clone(), row.command_id()?);
        match row.direction {
            Direction::Credit => self.execute(id, Deposit { account, booking }).await,
            Direction::Debit => self.execute(id, Withdraw { account, booking }).await,
        }
    }

    /// Opens an account. One that is open already, whoever opened it, is left as it is.
    async fn open(&self, account: &AccountId) -> Result<(), CommandError<BankError>> {
        let id = CommandId::new(format!("open-{account}"))?;
        let open = OpenAccount { account: account.clone(), owner: None, overdraft: Overdraft::Unlimited };
        match self.execute(id, open).await {
            Ok(_) | Err(CommandError::Rejected(BankError::AlreadyOpen { .. })) => Ok(()),
            Err(error) => Err(error),
        }
    }

    async fn execute<C>(&self, id: CommandId, command: C) -> Result<Effect, CommandError<BankError>>
    where
        C: CommandLogic<Error = BankError>,
    {
        let outcome = self.executor.execute_with(CommandContext::new().command_id(id), command).await?;
        Ok(if outcome.replayed() { Effect::Earlier } else { Effect::Now })
    }
}

/// When a command had its effect.
enum Effect {
    Now,
    Earlier,
}

/// Whether the row is at fault: the bank refused it, its number stands for another row, or it is over a limit of the store.
/// Anything else will meet the next row, too.
fn is_about_the_row(error: &CommandError<BankError>) -> bool {
    matches!(error.kind(), ErrorKind::Rejected | ErrorKind::BadInput)
        || matches!(error, CommandError::Store(EventStoreError::CommandIdReused { .. }))
}
