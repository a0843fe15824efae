//! Writes the fixture of the present schema version: `cargo run -p eventcore-sqlite --example make_fixture -- PATH`.
//!
//! Every schema version has its fixture in `tests/fixtures/v<N>.db`. It is made once, when the version is published, and
//! never again: all later versions have to open it.

use eventcore::{
    AppendRequest, Checkpoint, CheckpointStore, CommandClaim, CommandId, EventFilter, EventId, EventMetadata,
    EventReader, EventStore, Fingerprint, LogCursor, NewEvent, PageSize, Payload, ProjectionName, ProjectorCoordinator,
    SchemaVersion, StreamId, Timestamp,
};
use eventcore_sqlite::SqliteEventStore;
use std::error::Error;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let path = std::env::args().nth(1).ok_or("usage: make_fixture PATH")?;
    let store = SqliteEventStore::open(&path).await?;
    let alice = StreamId::new("account-alice")?;
    let bob = StreamId::new("account-bob")?;
    let json = event("bank.MoneyDeposited", 2, Payload::json(r#"{"z":1,"a":"\u0000"}"#))?;
    let claim = CommandClaim { command_id: CommandId::new("transfer-1")?, fingerprint: Fingerprint::of("Fixture", []) };
    let request = AppendRequest::builder().command(claim).event(alice.clone(), json);
    let request = request.event(bob, event("bank.MoneyWithdrawn", 1, Payload::binary(vec![0, 255]))?);
    store.append(request.build()?).await?;
    let last = event("bank.MoneyDeposited", 2, Payload::json("{}"))?;
    store.append(AppendRequest::builder().event(alice, last).build()?).await?;

    let page = store.read_page(&EventFilter::all(), None, PageSize::default()).await?;
    let cursor = page.events.first().map(|event| LogCursor { position: event.position(), event_id: event.id() });
    let name = ProjectionName::new("balances")?;
    let leadership = store.acquire(&name).await?;
    let filter = EventFilter::all().types(["bank.MoneyDeposited".parse()?]).identity();
    let checkpoint = Checkpoint { name, cursor, filter, lineage: store.lineage(), updated_at: Timestamp::now() };
    store.save_checkpoint(&checkpoint, leadership.epoch()).await?;
    store.release(leadership).await?;
    Ok(store.close().await?)
}

fn event(event_type: &str, version: u32, payload: Payload) -> Result<NewEvent, Box<dyn Error>> {
    Ok(NewEvent {
        id: EventId::generate(),
        event_type: event_type.parse()?,
        schema_version: SchemaVersion::try_new(version)?,
        payload,
        metadata: EventMetadata::builder().value("made by", "make_fixture").build()?,
    })
}
