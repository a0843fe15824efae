//! `bank projections`

use crate::Exit;
use crate::output::{Failure, say};
use eventcore::{Backend, Checkpoint, EventFilter, GlobalPosition, PageSize, Timestamp};
use eventcore_examples::bank::BankEvent;
use std::sync::Arc;

/// Prints how far the projections that keep something in the store have come.
pub(crate) async fn run(backend: &Arc<dyn Backend>) -> Result<Exit, Failure> {
    let checkpoints = backend.list_checkpoints().await?;
    if checkpoints.is_empty() {
        say("no projection keeps anything in this store yet; bank rebuild makes one")?;
        return Ok(Exit::Success);
    }
    let head = number(backend.head().await?);
    let width = checkpoints.iter().map(|checkpoint| checkpoint.name.as_str().len()).max().unwrap_or(0).max(10);
    say(&format!("{:width$}  {:>10}  {:>10}  {:>8}  {:>10}", "projection", "position", "head", "behind", "for"))?;
    for checkpoint in checkpoints {
        let position = number(checkpoint.cursor.map(|cursor| cursor.position));
        let (behind, seconds) = lag(backend, &checkpoint, head).await?;
        say(&format!(
            "{:width$}  {position:>10}  {head:>10}  {behind:>8}  {seconds:>8.1} s",
            checkpoint.name.as_str()
        ))?;
    }
    Ok(Exit::Success)
}

/// How many positions a projection is behind, and since when: the age of the first event that it has not seen.
async fn lag(backend: &Arc<dyn Backend>, checkpoint: &Checkpoint, head: u64) -> Result<(u64, f64), Failure> {
    let after = checkpoint.cursor.map(|cursor| cursor.position);
    let filter = EventFilter::of::<BankEvent>();
    let page = backend.read_page(&filter, after, PageSize::try_new(1)?).await?;
    let Some(first) = page.events.first() else { return Ok((0, 0.0)) };
    let age = Timestamp::now().as_micros().saturating_sub(first.recorded_at().as_micros());
    Ok((head.saturating_sub(number(after)), age.max(0) as f64 / 1e6))
}

fn number(position: Option<GlobalPosition>) -> u64 {
    position.map_or(0, GlobalPosition::get)
}
