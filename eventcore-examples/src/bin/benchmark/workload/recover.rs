//! W10: a writer is killed, and the store is opened again: from nothing to the answer to the first command. Beside it the same
//! by hand: the file or the database opened, the end of the log read, one durable write.

use crate::Failure;
use crate::domain::{Account, Deposit};
use crate::lab::Lab;
use crate::outcome::{Case, Limit, Outcome, Percentiles};
use crate::place::Place;
use crate::resources::Cost;
use crate::timing::{Call, Timed, Until, closed_loop};
use eventcore::{Backend, CommandExecutor, execute};
use std::io::Read;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

const ACCOUNTS: u32 = 10_000;
/// How long the writer writes before it is killed.
const WRITE: Duration = Duration::from_millis(300);
const ROUNDS: u32 = 5;

pub(crate) async fn run(lab: &Lab, done: &mut dyn FnMut(Outcome)) -> Result<(), Failure> {
    if matches!(lab.place, Place::Memory) {
        return Ok(());
    }
    let Some(&size) = lab.sizes.last() else { return Ok(()) };
    lab.stage(format!("W10, filling a store with {size} events"))?;
    let store = lab.place.fresh().await?;
    lab.fill(&store, size, ACCOUNTS).await?;
    store.close().await?;
    drop(store);

    let (mut raw, mut own) = (Timed::new()?, Timed::new()?);
    let mut cost = Cost::default();
    for round in 1..=ROUNDS {
        lab.stage(format!("W10, round {round} of {ROUNDS}"))?;
        tokio::task::block_in_place(|| write_and_die(lab))?;
        let began = Instant::now();
        lab.place.open_by_hand().await?;
        let time = began.elapsed();
        raw.elapsed += time;
        raw.done += 1;
        raw.record(time)?;

        tokio::task::block_in_place(|| write_and_die(lab))?;
        let before = lab.meter.start();
        let began = Instant::now();
        let store = lab.place.another().await?;
        execute(&store, Deposit { account: Account(0), amount: 1 }).await?;
        let time = began.elapsed();
        cost.add(lab.meter.spent(before));
        own.elapsed += time;
        own.done += 1;
        own.record(time)?;
        store.close().await?;
    }
    let case = Case { events: Some(size), ..Case::new("W10", "open after SIGKILL, to the first command", 1) };
    done(Outcome::new(case, &own, cost).against(Percentiles::of(&raw.latency).map(Limit::Latency)));
    Ok(())
}

/// Runs this program as a writer, and kills it in the middle.
fn write_and_die(lab: &Lab) -> Result<(), Failure> {
    let mut writer = Command::new(std::env::current_exe()?)
        .args(["--store", &lab.place.url(), "--write-until-killed"])
        .stdout(Stdio::piped())
        .stdin(Stdio::null())
        .spawn()?;
    // It says when it has begun.
    let began = writer.stdout.take().map(|mut out| out.read(&mut [0]));
    std::thread::sleep(WRITE);
    writer.kill()?;
    let ended = writer.wait()?;
    match began {
        Some(Ok(1..)) => Ok(()),
        _ => Err(format!("the writer ended: {ended}").into()),
    }
}

/// What the writer does.
pub(crate) async fn write_until_killed(place: &Place) -> Result<(), Failure> {
    let store: Arc<dyn Backend> = place.another().await?;
    let executor = CommandExecutor::new(store);
    let until = Until { time: Duration::from_secs(60), calls: u64::MAX, stop: CancellationToken::new() };
    println!("writing");
    closed_loop(8, &until, move |_| {
        let executor = executor.clone();
        async move {
            executor.execute(Deposit { account: Account(fastrand::u32(..ACCOUNTS)), amount: 1 }).await?;
            Ok(Call::Done)
        }
    })
    .await?;
    Ok(())
}
