//! W4: bulk appends of 1 and of 100 events, without reading. Counted in events.

use crate::Failure;
use crate::domain::Account;
use crate::lab::{self, Lab};
use crate::outcome::{Case, Outcome};
use crate::raw::Insert;

const ACCOUNTS: u32 = 1_000;

pub(crate) async fn run(lab: &Lab, done: &mut dyn FnMut(Outcome)) -> Result<(), Failure> {
    for size in [1_u32, 100] {
        let events = if size == 1 { "1 event".to_owned() } else { format!("{size} events") };
        let case = Case::new("W4", format!("appends of {events}"), 1);
        lab.stage(format!("W4, {events} per append"))?;
        let store = lab.place.fresh().await?;
        lab.fill(&store, ACCOUNTS, ACCOUNTS).await?;
        let filled = store.head().await?;
        let before = lab.meter.start();
        let timed = lab
            .repeat(u64::from(size), async || {
                let first = fastrand::u32(..ACCOUNTS);
                store.append(lab::deposits((0..size).map(|n| Account((first + n) % ACCOUNTS)), 1)?).await?;
                Ok(())
            })
            .await?;
        let cost = lab.meter.spent(before);
        let commits = lab.verify(&store, filled, timed.done, i64::try_from(timed.done)?).await?;
        store.close().await?;
        let limit = lab
            .limit(format!("W4 limit, {events} at once"), async || {
                lab.raw_inserts(ACCOUNTS, size as usize, Insert::Plain).await
            })
            .await?;
        done(Outcome::new(case, &timed, cost).group(commits).against(limit));
    }
    Ok(())
}
