//! `bank import FILE`

use crate::Exit;
use crate::cli::Import;
use crate::interrupt::asked_to_stop;
use crate::output::{Failure, note, say};
use eventcore::{Backend, CommandError};
use eventcore_examples::bank::BankError;
use eventcore_examples::chain;
use eventcore_examples::import::{ImportConfig, ImportObserver, ImportRow, RowError, run_import};
use indicatif::{ProgressBar, ProgressStyle};
use std::convert::Infallible;
use std::fs::File;
use std::io::{self, BufReader};
use std::path::PathBuf;
use std::sync::Arc;
use thiserror::Error;
use tokio_util::sync::CancellationToken;

/// The file cannot be imported from.
#[derive(Debug, Error)]
#[error("cannot read {path:?}")]
struct Unreadable {
    path: PathBuf,
    #[source]
    source: io::Error,
}

pub(crate) async fn run(arguments: Import, backend: Arc<dyn Backend>) -> Result<Exit, Failure> {
    let Import { file: path, in_flight } = arguments;
    let opened = File::open(&path).and_then(|file| file.metadata().map(|metadata| (file, metadata)));
    let (file, size) = match opened {
        Ok((_, metadata)) if metadata.is_dir() => {
            return Err(Unreadable { path, source: io::ErrorKind::IsADirectory.into() }.into());
        }
        Ok((file, metadata)) => (file, metadata.len()),
        Err(source) => return Err(Unreadable { path, source }.into()),
    };

    let bar = progress_bar(size);
    let stop = CancellationToken::new();
    let config = ImportConfig { in_flight, stop: stop.clone() };
    let import = run_import(backend, BufReader::new(file), config, Arc::new(Terminal(bar.clone())));
    let imported = tokio::select! {
        // First, so that Ctrl-C is listened to before anything is done.
        biased;
        never = stop_at_interrupt(stop, bar.clone()) => match never {},
        imported = import => imported,
    };
    bar.finish_and_clear();

    let summary = imported?;
    say(&summary.to_string())?;
    if summary.interrupted {
        note("bank: interrupted; run the same import again and it goes on from here");
        return Ok(Exit::Interrupted);
    }
    Ok(if summary.is_clean() { Exit::Success } else { Exit::RowsLeftOut })
}

/// A bar on standard error; it stays silent where that is no terminal.
fn progress_bar(size: u64) -> ProgressBar {
    let bar = ProgressBar::new(size);
    let style = ProgressStyle::with_template("{bar:40} {percent:>3}% {bytes}/{total_bytes} {eta}");
    bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

/// The first Ctrl-C or SIGTERM lets what is in flight finish; a second one ends the program at once, which loses nothing either.
async fn stop_at_interrupt(stop: CancellationToken, bar: ProgressBar) -> Infallible {
    if asked_to_stop().await.is_ok() {
        stop.cancel();
        bar.suspend(|| note("bank: finishing what is in flight; press Ctrl-C again to leave at once"));
        if asked_to_stop().await.is_ok() {
            std::process::exit(Exit::Interrupted as i32);
        }
    }
    // Where nothing can be listened to, the system ends the program by itself.
    std::future::pending().await
}

/// Tells on standard error how the import goes on.
struct Terminal(ProgressBar);

impl ImportObserver for Terminal {
    fn progress(&self, bytes_read: u64) {
        self.0.set_position(bytes_read);
    }

    fn malformed(&self, line: u64, error: &RowError) {
        self.0.suspend(|| note(&format!("line {line}: malformed: {error}")));
    }

    fn rejected(&self, line: u64, row: &ImportRow, error: &CommandError<BankError>) {
        let refusal = format!("line {line}: transaction {}: refused: {}", row.transaction, chain(error));
        self.0.suspend(|| note(&refusal));
    }
}
