//! Files of every schema version that was ever published are opened.

use crate::support::{Home, append, claim, stream};
use eventcore::{
    CheckpointStore, ContentType, DeadLetterStore, EventFilter, EventReader, EventStore, Fingerprint, PageSize,
    ProjectionName, ProjectorCoordinator, ReadStreams,
};
use eventcore_sqlite::SqliteEventStore;

#[tokio::test]
async fn version_1() {
    let (_home, store) = opened(include_bytes!("../fixtures/v1.db")).await;
    assert!(store.dead_letters(None, None, PageSize::default()).await.unwrap().is_empty());
}

#[tokio::test]
async fn version_2() {
    let (_home, store) = opened(include_bytes!("../fixtures/v2.db")).await;
    let letters = store.dead_letters(None, None, PageSize::default()).await.unwrap();
    let told: Vec<_> = letters.iter().map(|l| (l.id.position.get(), l.attempts, l.errors.clone())).collect();
    assert_eq!(told, [(1, 3, vec!["outer".to_owned(), "inner".to_owned()])]);
}

/// Opens a file, checks what is in it, and works on it. The file is there as long as its home is.
async fn opened(file: &[u8]) -> (Home, SqliteEventStore) {
    let home = Home::new();
    std::fs::write(home.path(), file).unwrap();
    let store = home.open().await;

    let read = ReadStreams::new([stream("account-alice"), stream("account-bob"), stream("account-carol")]).unwrap();
    let command = eventcore::CommandId::new("transfer-1").unwrap();
    let read = store.read_streams(read.with_receipt_of(Some(command))).await.unwrap();
    assert_eq!(read.versions.iter().map(|version| version.get()).collect::<Vec<_>>(), [2, 1, 0]);
    let events: Vec<_> = read
        .events
        .iter()
        .map(|event| {
            let payload = event.payload();
            let place = (event.position().get(), event.stream_id().as_str(), event.version().get());
            let kind = (event.event_type().as_str(), event.schema_version().get());
            (place, kind, payload.content_type(), payload.bytes().as_ref(), event.metadata().value("made by"))
        })
        .collect();
    let made_by = Some("make_fixture");
    let deposited = ("bank.MoneyDeposited", 2);
    let expected: [(_, _, _, &[u8], _); 3] = [
        ((1, "account-alice", 1), deposited, ContentType::Json, br#"{"z":1,"a":"\u0000"}"#, made_by),
        ((2, "account-bob", 1), ("bank.MoneyWithdrawn", 1), ContentType::Binary, &[0, 255], made_by),
        ((3, "account-alice", 2), deposited, ContentType::Json, b"{}", made_by),
    ];
    assert_eq!(events, expected);
    let receipt = read.receipt.unwrap();
    assert_eq!(receipt.claim.fingerprint, Fingerprint::of("Fixture", []));
    assert_eq!(receipt.events.iter().map(|event| event.position.get()).collect::<Vec<_>>(), [1, 2]);

    let name = ProjectionName::new("balances").unwrap();
    let checkpoint = store.load_checkpoint(&name).await.unwrap().unwrap();
    assert_eq!(checkpoint.cursor.unwrap().event_id, read.events[0].id());
    assert_eq!(checkpoint.filter, EventFilter::all().types(["bank.MoneyDeposited".parse().unwrap()]).identity());
    assert_eq!(checkpoint.lineage, store.lineage());
    assert_eq!(store.acquire(&name).await.unwrap().epoch().get(), 2);

    // And it is a store like any other.
    assert_eq!(append(&store, "account-bob", "{}").await.unwrap().events[0].version.get(), 2);
    let mut again = claim("transfer-1");
    again.fingerprint = receipt.claim.fingerprint;
    let again = eventcore::AppendRequest::builder().command(again).build().unwrap();
    assert!(store.append(again).await.unwrap().replayed);
    let page = store.read_page(&EventFilter::all(), None, PageSize::default()).await.unwrap();
    assert_eq!(page.events.len(), 4);
    (home, store)
}
