//! Measures EventCore on a store, beside the limit of the storage below it. `benchmark --help` tells how.
#![forbid(unsafe_code)]

mod check;
mod cli;
mod domain;
mod lab;
mod outcome;
mod place;
mod plot;
mod raw;
mod report;
mod resources;
mod timing;
mod workload;

use clap::Parser;
use cli::{Choice, Cli};
use indicatif::{ProgressBar, ProgressStyle};
use lab::{Interrupted, Lab};
use outcome::Outcome;
use place::Place;
use report::{Report, is_writable};
use std::error::Error as StdError;
use std::process::ExitCode;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Anything that ends the benchmark.
pub(crate) type Failure = Box<dyn StdError + Send + Sync>;

const INTERRUPTED: u8 = 130;

#[tokio::main]
async fn main() -> ExitCode {
    match run(Cli::parse()).await {
        Ok(code) => code,
        Err(error) => {
            eprintln!("benchmark: {}", eventcore_examples::chain(&*error));
            ExitCode::FAILURE
        }
    }
}

async fn run(cli: Cli) -> Result<ExitCode, Failure> {
    let workloads = Choice::resolve(&cli.workloads);
    if cli.write_until_killed {
        workload::write_until_killed(&Place::existing(cli.store)?).await?;
        return Ok(ExitCode::SUCCESS);
    }
    [&cli.save, &cli.plot].into_iter().flatten().try_for_each(|path| is_writable(path))?;
    if !cli.sizes.is_sorted_by(|smaller, larger| smaller < larger) {
        return Err("--sizes have to rise: the first one is what the others are held against".into());
    }
    let place = Place::new(cli.store)?;
    let stop = CancellationToken::new();
    tokio::spawn(stop_at_interrupt(stop.clone()));
    let lab = Lab {
        meter: place.meter().await?,
        place,
        concurrency: cli.concurrency,
        time: cli.seconds,
        events: cli.events.get(),
        input: cli.input,
        limits: !cli.without_limits,
        sizes: cli.sizes.iter().map(|size| size.get()).collect(),
        stop,
        progress: progress_bar(u64::from(cli.runs.get()) * workloads.len() as u64),
    };

    let mut outcomes = Vec::new();
    let measured = measure(&lab, &workloads, cli.runs.get(), &mut outcomes).await;
    lab.progress.finish_and_clear();
    let cleared = lab.place.clear().await;

    let report = Report {
        store: lab.place.name(),
        seconds: cli.seconds.as_secs_f64(),
        runs: cli.runs.get(),
        outcomes: &outcomes,
    };
    if cli.json {
        report.json()?
    } else {
        report.table()?
    }
    if let Some(path) = &cli.save {
        report.save(path)?;
    }
    if let Some(path) = &cli.plot {
        plot::draw(lab.place.name(), &outcomes, path)?;
    }
    match measured {
        Err(error) if error.is::<Interrupted>() => {
            cleared?;
            Ok(INTERRUPTED.into())
        }
        Err(error) => Err(error),
        Ok(()) => {
            cleared?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

async fn measure(lab: &Lab, workloads: &[Choice], runs: u32, outcomes: &mut Vec<Outcome>) -> Result<(), Failure> {
    for run in 1..=runs {
        for &choice in workloads {
            workload::run(choice, lab, &mut |outcome| outcomes.push(Outcome { run, ..outcome })).await?;
            // What Ctrl-C cut short is no figure.
            lab.stage("")?;
            lab.progress.inc(1);
        }
    }
    Ok(())
}

/// A bar on standard error; it stays silent where that is no terminal.
fn progress_bar(steps: u64) -> ProgressBar {
    let bar = ProgressBar::new(steps);
    bar.enable_steady_tick(Duration::from_millis(200));
    let style = ProgressStyle::with_template("{bar:30} {pos}/{len} {elapsed} {msg}");
    bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

/// The first Ctrl-C ends the measurement in hand and prints what there is; a second one ends the program at once.
async fn stop_at_interrupt(stop: CancellationToken) {
    if tokio::signal::ctrl_c().await.is_ok() {
        stop.cancel();
        if tokio::signal::ctrl_c().await.is_ok() {
            std::process::exit(INTERRUPTED.into());
        }
    }
}
