//! `bank rebuild`

use crate::Exit;
use crate::interrupt::asked_to_stop;
use crate::output::{Failure, note, say};
use eventcore::{
    Backend, GlobalPosition, LiveConfig, ProjectionManager, Rebuild, RebuildProgress, RebuildState, VersionedProjector,
    VersionedUnitOfWork,
};
use eventcore_examples::OpenStore;
use eventcore_examples::bank::{BalanceTable, TableStore};
use indicatif::{ProgressBar, ProgressStyle};
use std::time::{Duration, Instant};

/// How often the bar moves.
const LOOK: Duration = Duration::from_millis(100);

pub(crate) async fn run(store: OpenStore) -> Result<Exit, Failure> {
    match store {
        OpenStore::Sqlite(store) => rebuild(store).await,
        OpenStore::Postgres(store) => rebuild(store).await,
        _ => Err("a store in memory keeps no read model that could be rebuilt".into()),
    }
}

/// Builds the table of balances anew. The one that stands serves meanwhile; stopped in the middle, it goes on next time.
async fn rebuild<S>(store: S) -> Result<Exit, Failure>
where
    S: TableStore + Backend + VersionedUnitOfWork<S::Context> + Clone + 'static,
    BalanceTable<S::Context>: VersionedProjector<Context = S::Context>,
{
    let manager = ProjectionManager::builder(store)
        .live_config(LiveConfig::default())
        .register_versioned(BalanceTable::<S::Context>::new)?
        .build();
    let live = manager.start_live()?;
    let name = BalanceTable::<S::Context>::NAME;
    let started = Instant::now();
    let bar = progress_bar();
    let rebuilding = async {
        let mut rebuild = manager.rebuild(name).await?;
        follow(&mut rebuild, &bar).await
    };
    let rebuilt = tokio::select! {
        biased;
        stopped = asked_to_stop() => stopped.map(|()| None).map_err(Failure::from),
        rebuilt = rebuilding => rebuilt.map(Some),
    };
    bar.finish_and_clear();
    let closed = live.shutdown().await;
    let Some(progress) = rebuilt? else {
        note("bank: interrupted; the balances that stood go on to serve. Run it again and it goes on from here");
        return Ok(Exit::Interrupted);
    };
    closed?;
    let (events, seconds) = (number(progress.position), started.elapsed().as_secs_f64());
    let rate = events as f64 / seconds.max(0.001);
    say(&format!("{name} was rebuilt: position {events} in {seconds:.1} s, {rate:.0} per second"))?;
    Ok(Exit::Success)
}

/// Moves the bar until the rebuild is done.
async fn follow(rebuild: &mut Rebuild, bar: &ProgressBar) -> Result<RebuildProgress, Failure> {
    loop {
        let progress = rebuild.progress().await?;
        bar.set_length(number(progress.head));
        bar.set_position(number(progress.position));
        match &progress.state {
            RebuildState::Done => return Ok(progress),
            RebuildState::GivenUp(reason) => return Err(format!("the rebuild was given up: {reason}").into()),
            _ => tokio::time::sleep(LOOK).await,
        }
    }
}

/// A bar on standard error; it stays silent where that is no terminal.
fn progress_bar() -> ProgressBar {
    let style = ProgressStyle::with_template("{bar:40} {percent:>3}% {pos}/{len} {per_sec} {eta}");
    ProgressBar::new(0).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

fn number(position: Option<GlobalPosition>) -> u64 {
    position.map_or(0, GlobalPosition::get)
}
