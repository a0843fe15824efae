//! The limit of W6: a wake-up and one read, by hand. In process over a channel; on PostgreSQL over LISTEN and NOTIFY.

use super::follow::PACE;
use crate::Failure;
use crate::lab::Lab;
use crate::place::{Place, RAW_SCHEMA};
use crate::raw::{Insert, Raw, RawRows, RawSqlite};
use crate::timing::Timed;
use eventcore_postgres::sqlx::postgres::PgListener;
use eventcore_postgres::sqlx::{self, AssertSqlSafe, Connection, PgConnection};
use std::sync::mpsc::{Receiver, channel};
use std::time::Instant;

const ACCOUNTS: u32 = 1_000;
const CHANNEL: &str = "eventcore_benchmark";

pub(super) async fn measure(lab: &Lab) -> Result<Timed, Failure> {
    let mut raw = lab.place.raw(ACCOUNTS).await?;
    match (&lab.place, &mut raw) {
        (Place::Postgres(url), Raw::Postgres(_)) => listening(lab, url, &mut raw).await,
        (_, Raw::Sqlite(sqlite)) => {
            let reader = sqlite.reader()?;
            let (wake, woken) = channel();
            let (seen, sees) = tokio::sync::mpsc::channel(1);
            let thread = std::thread::spawn(move || read_when_woken(&reader, &woken, &seen));
            let timed = paced(lab, &mut raw, wake, sees).await;
            thread.join().map_err(|_| "the reader of the limit panicked")??;
            timed
        }
        _ => {
            let (wake, woken) = channel();
            let (seen, sees) = tokio::sync::mpsc::channel(1);
            // What a read of memory costs is below what can be measured here.
            let thread =
                std::thread::spawn(move || while woken.recv().is_ok() && seen.blocking_send(Instant::now()).is_ok() {});
            let timed = paced(lab, &mut raw, wake, sees).await;
            thread.join().map_err(|_| "the reader of the limit panicked")?;
            timed
        }
    }
}

fn read_when_woken(
    reader: &RawSqlite,
    woken: &Receiver<()>,
    seen: &tokio::sync::mpsc::Sender<Instant>,
) -> Result<(), Failure> {
    let mut last = 0;
    while woken.recv().is_ok() {
        last = reader.after(last)?.ok_or("the limit was woken without need")?;
        if seen.blocking_send(Instant::now()).is_err() {
            break;
        }
    }
    Ok(())
}

/// Inserts at the pace of the workload, wakes the reader, and waits until it has seen the row.
async fn paced(
    lab: &Lab,
    raw: &mut Raw,
    wake: std::sync::mpsc::Sender<()>,
    mut sees: tokio::sync::mpsc::Receiver<Instant>,
) -> Result<Timed, Failure> {
    let mut rows = RawRows::new(ACCOUNTS);
    let mut timed = Timed::new()?;
    let started = Instant::now();
    while started.elapsed() < lab.time && !lab.stop.is_cancelled() {
        raw.insert(&rows.take(1)?, Insert::Conditional).await?;
        let answered = Instant::now();
        wake.send(()).map_err(|_| "the reader of the limit ended")?;
        let seen = sees.recv().await.ok_or("the reader of the limit ended")?;
        timed.record(seen - answered)?;
        timed.done += 1;
        tokio::time::sleep(PACE.mul_f64(0.5 + fastrand::f64())).await;
    }
    timed.elapsed = started.elapsed();
    Ok(timed)
}

async fn listening(lab: &Lab, url: &str, raw: &mut Raw) -> Result<Timed, Failure> {
    let mut listener = PgListener::connect(url).await?;
    listener.listen(CHANNEL).await?;
    let mut reader = PgConnection::connect(url).await?;
    let mut notifier = PgConnection::connect(url).await?;
    let (seen, mut sees) = tokio::sync::mpsc::channel(1);
    let follower = tokio::spawn(async move {
        let sql = format!(
            "select position, payload_json::text from {RAW_SCHEMA}.events where position > $1 order by position limit 1000"
        );
        let mut last = 0_i64;
        while listener.recv().await.is_ok() {
            let rows: Vec<(i64, String)> =
                sqlx::query_as(AssertSqlSafe(sql.as_str())).bind(last).fetch_all(&mut reader).await?;
            last = rows.last().map_or(last, |row| row.0);
            if seen.send(Instant::now()).await.is_err() {
                break;
            }
        }
        Ok::<_, sqlx::Error>(())
    });
    let mut rows = RawRows::new(ACCOUNTS);
    let mut timed = Timed::new()?;
    let started = Instant::now();
    while started.elapsed() < lab.time && !lab.stop.is_cancelled() {
        raw.insert(&rows.take(1)?, Insert::Conditional).await?;
        let answered = Instant::now();
        sqlx::query("select pg_notify($1, '')").bind(CHANNEL).execute(&mut notifier).await?;
        let seen = sees.recv().await.ok_or("the listener of the limit ended")?;
        timed.record(seen - answered)?;
        timed.done += 1;
        tokio::time::sleep(PACE.mul_f64(0.5 + fastrand::f64())).await;
    }
    timed.elapsed = started.elapsed();
    follower.abort();
    Ok(timed)
}
