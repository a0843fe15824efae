//! The database itself refuses to change history, whoever asks.

use crate::support::{Home, append, claim, event, stream};
use eventcore::{AppendRequest, EventFilter, EventReader, EventStore, PageSize, Timestamp};

const INSERT: &str = "into eventcore_events (position, stream, version, type, schema_version, content_type, id, recorded_at, \
     payload) select ";
const REST: &str =
    ", type, schema_version, content_type, id, recorded_at, x'00' from eventcore_events where position = 1";

#[tokio::test]
async fn history_cannot_be_changed_by_any_statement() {
    let home = Home::new();
    let store = home.open().await;
    for payload in ["1", "2", "3"] {
        append(&store, "s", payload).await.unwrap();
    }
    let request = AppendRequest::builder().command(claim("c")).event(stream("other"), event("4"));
    store.append(request.build().unwrap()).await.unwrap();
    let before = store.read_page(&EventFilter::all(), None, PageSize::default()).await.unwrap();

    let raw = home.raw();
    let in_order = "only appended";
    let immutable = "immutable";
    let attempts: Vec<(String, &str)> = vec![
        ("update eventcore_events set payload = x'00' where position = 2".into(), immutable),
        ("update or replace eventcore_events set position = 1 where position = 2".into(), immutable),
        ("delete from eventcore_events where position = 2".into(), immutable),
        ("delete from eventcore_events".into(), immutable),
        // An existing position, with the next version.
        (format!("insert or replace {INSERT} 2, stream, 4 {REST}"), in_order),
        (format!("insert {INSERT} 2, stream, 4 {REST}"), in_order),
        // The next position, with an existing version.
        (format!("insert or replace {INSERT} 5, stream, 2 {REST}"), in_order),
        (format!("insert {INSERT} 5, stream, 2 {REST}"), in_order),
        // Gaps.
        (format!("insert {INSERT} 6, stream, 4 {REST}"), in_order),
        (format!("insert {INSERT} 5, stream, 5 {REST}"), in_order),
        // A position that SQLite chooses.
        (format!("insert {INSERT} null, stream, 4 {REST}"), in_order),
        (
            format!(
                "insert {INSERT} 2, stream, 4 {REST} on conflict (position) do update set payload = excluded.payload"
            ),
            "",
        ),
        ("update eventcore_streams set name = 'x' where id = 1".into(), immutable),
        ("delete from eventcore_streams".into(), immutable),
        ("insert or replace into eventcore_streams (id, name) values (1, 'x')".into(), immutable),
        ("insert or replace into eventcore_streams (id, name) values (9, 's')".into(), immutable),
        ("update eventcore_event_types set name = 'x'".into(), immutable),
        ("delete from eventcore_event_types".into(), immutable),
        ("insert or replace into eventcore_event_types (id, name) values (1, 'x')".into(), immutable),
        ("update eventcore_receipts set event_count = 2".into(), immutable),
        (
            "insert or replace into eventcore_receipts select command_id, fingerprint, 0, 1, 1 from eventcore_receipts"
                .into(),
            immutable,
        ),
        ("update eventcore_meta set value = x'00'".into(), immutable),
        ("delete from eventcore_meta".into(), immutable),
        ("insert or replace into eventcore_meta values ('lineage', x'00')".into(), immutable),
    ];
    for (statement, expected) in &attempts {
        let error = raw.execute(statement, []).expect_err(statement).to_string();
        assert!(error.contains(expected), "{statement}: {error}");
    }
    let after = store.read_page(&EventFilter::all(), None, PageSize::default()).await.unwrap();
    assert_eq!(after, before);
    // The attempts in order fail for their own sake: the same insert at the next position and version is taken.
    raw.execute(&format!("insert {INSERT} 5, stream, 4 {REST}"), []).unwrap();
}

#[tokio::test]
async fn pruning_deletes_receipts_and_nothing_else() {
    let home = Home::new();
    let store = home.open().await;
    for n in 0..2_500 {
        let request = AppendRequest::builder().command(claim(&format!("c-{n}"))).build().unwrap();
        store.append(request).await.unwrap();
    }
    let later = Timestamp::from_micros(Timestamp::now().as_micros() + 1).unwrap();
    assert_eq!(store.prune_receipts(Timestamp::from_micros(0).unwrap()).await.unwrap(), 0);
    assert_eq!(store.prune_receipts(later).await.unwrap(), 2_500);
    let left: i64 = home.raw().query_row("select count(*) from eventcore_receipts", [], |row| row.get(0)).unwrap();
    assert_eq!(left, 0);
}
