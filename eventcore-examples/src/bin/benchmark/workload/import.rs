//! The bank's import of a real file, end to end: parsed, opened, decided with command ids, and compared in the end. Beside it
//! the events that came of it, inserted in bulk by hand.

use crate::Failure;
use crate::check::broken;
use crate::lab::Lab;
use crate::outcome::{Case, Outcome, Throughput};
use crate::raw::{Insert, RawRow};
use crate::timing::Timed;
use eventcore::{Backend, CommandError, EventFilter, PageSize, StreamId};
use eventcore_examples::bank::BankError;
use eventcore_examples::import::{ImportConfig, ImportObserver, ImportRow, RowError, run_import};
use std::collections::HashMap;
use std::fs::File;
use std::io::BufReader;
use std::sync::Arc;
use std::time::Instant;

/// Rows of a transaction by hand.
const BULK: usize = 1_000;

pub(crate) async fn run(lab: &Lab, done: &mut dyn FnMut(Outcome)) -> Result<(), Failure> {
    let Some(input) = &lab.input else { return Ok(()) };
    lab.stage("import")?;
    let store = lab.place.fresh().await?;
    let file = BufReader::new(File::open(input).map_err(|error| format!("cannot read {}: {error}", input.display()))?);
    let config = ImportConfig { stop: lab.stop.clone(), ..ImportConfig::default() };
    let before = lab.meter.start();
    let began = Instant::now();
    let summary = run_import(Arc::clone(&store), file, config, Arc::new(Silent)).await?;
    let mut imported = Timed::new()?;
    imported.elapsed = began.elapsed();
    imported.done = summary.accepted;
    let cost = lab.meter.spent(before);
    let rows = rows(&store).await?;
    store.close().await?;
    if summary.accepted == 0 {
        return Err(broken(format!("no row of {} was accepted", input.display())));
    }
    if (rows.len() as u64) < summary.accepted {
        return Err(broken(format!("{} rows were accepted, {} events are there", summary.accepted, rows.len())));
    }

    let limit = lab.limit("import: the same rows by hand", async || limit(lab, &rows, summary.accepted).await).await?;
    let case = Case::new("import", "rows of a file, end to end", ImportConfig::default().in_flight.get());
    done(Outcome::new(case, &imported, cost).against(limit));
    Ok(())
}

/// The events of so many accepted rows, inserted by hand.
async fn limit(lab: &Lab, rows: &[RawRow], accepted: u64) -> Result<Throughput, Failure> {
    let accounts = rows.iter().map(|row| row.account + 1).max().unwrap_or(1);
    let mut raw = lab.place.raw(accounts).await?;
    let before = lab.meter.start();
    let began = Instant::now();
    for rows in rows.chunks(BULK) {
        raw.insert(rows, Insert::Plain).await?;
    }
    let mut by_hand = Timed::new()?;
    by_hand.elapsed = began.elapsed();
    by_hand.done = accepted;
    Ok(Throughput::of(&by_hand, lab.meter.spent(before)))
}

/// What the import stored, as rows for the limit.
async fn rows(store: &Arc<dyn Backend>) -> Result<Vec<RawRow>, Failure> {
    let mut accounts: HashMap<StreamId, u32> = HashMap::new();
    let mut rows = Vec::new();
    let mut after = None;
    loop {
        let page = store.read_page(&EventFilter::all(), after, PageSize::try_new(10_000)?).await?;
        for event in page.events {
            let next = u32::try_from(accounts.len())?;
            let account = *accounts.entry(event.stream_id().clone()).or_insert(next);
            rows.push(RawRow {
                account,
                stream: event.stream_id().to_string(),
                expected: i64::try_from(event.version().get())? - 1,
                id: event.id().as_uuid(),
                payload: std::str::from_utf8(event.payload().bytes())?.to_owned(),
            });
        }
        after = page.cursor.map(|cursor| cursor.position).or(after);
        if !page.more {
            return Ok(rows);
        }
    }
}

/// What is wrong with the file is known, and counted in the summary.
struct Silent;

impl ImportObserver for Silent {
    fn progress(&self, _: u64) {}

    fn malformed(&self, _: u64, _: &RowError) {}

    fn rejected(&self, _: u64, _: &ImportRow, _: &CommandError<BankError>) {}
}
