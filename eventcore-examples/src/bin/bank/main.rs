//! A small bank on an event store. `bank --help` tells what it can do.
#![forbid(unsafe_code)]

mod balances;
mod book;
mod cli;
mod demo;
mod history;
mod import;
mod interrupt;
mod output;
mod projections;
mod rebuild;
mod watch;

use clap::Parser;
use cli::{Cli, Request};
use eventcore::Backend;
use eventcore_examples::{OpenStore, StoreUrl, open, open_existing};
use output::Failure;
use std::process::ExitCode;
use std::sync::Arc;

/// How the program ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Exit {
    /// All is well.
    Success = 0,
    /// It could not be done, and standard error says why.
    Failure = 1,
    /// The import went to the end of the file, but some lines were malformed or refused.
    RowsLeftOut = 2,
    /// The command line makes no sense. As `sysexits.h` has it, since 2 has a meaning here.
    Usage = 64,
    /// Stopped by Ctrl-C, or by being told to terminate.
    Interrupted = 130,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Nothing is left to be done if not even this can be printed.
            let _ = error.print();
            return if error.use_stderr() { Exit::Usage } else { Exit::Success }.into();
        }
    };
    match run(cli).await {
        Ok(exit) => exit.into(),
        // Whoever read the output has seen enough, for example `bank balances | head`.
        Err(error) if output::is_broken_pipe(error.as_ref()) => Exit::Success.into(),
        Err(error) => {
            output::complain(error.as_ref());
            Exit::Failure.into()
        }
    }
}

async fn run(cli: Cli) -> Result<Exit, Failure> {
    let Some(request) = cli.request else {
        return demo::run(cli.store).await;
    };
    let url = cli.store.unwrap_or_else(|| StoreUrl::Sqlite(cli::DEFAULT_FILE.into()));
    let store = if request.only_looks() { open_existing(&url).await? } else { open(&url).await? };
    let backend = store.backend();
    let done = perform(request, store, Arc::clone(&backend)).await;
    // What was answered is durable already; closing waits for the rest of the store's own work.
    let closed = backend.close().await;
    let exit = done?;
    closed?;
    Ok(exit)
}

async fn perform(request: Request, store: OpenStore, backend: Arc<dyn Backend>) -> Result<Exit, Failure> {
    match request {
        Request::Import(arguments) => import::run(arguments, backend).await,
        Request::Balances => balances::run(&backend).await,
        Request::Watch => watch::run(&backend).await,
        Request::Projections => projections::run(&backend).await,
        Request::Rebuild => rebuild::run(store).await,
        Request::History { account } => history::run(&backend, &account).await,
        Request::Open(arguments) => book::open(&backend, arguments).await,
        Request::Deposit(arguments) => book::deposit(&backend, arguments).await,
        Request::Withdraw(arguments) => book::withdraw(&backend, arguments).await,
        Request::Transfer(arguments) => book::transfer(&backend, arguments).await,
    }
}
