//! `kill -9` under load.

use crate::child::Child;
use crate::support::Home;
use eventcore::{EventFilter, EventReader, EventStore, PageSize};
use std::collections::HashMap;

#[tokio::test]
async fn every_acknowledged_append_is_there_and_no_half_one() {
    let home = Home::new();
    let mut acknowledged = Vec::new();
    for acknowledgements in [50, 300, 1] {
        let mut child = Child::start("append under load", &home);
        for _ in 0..acknowledgements {
            acknowledged.push(child.line().expect("the child appends without end"));
        }
        child.kill();
        // What it said before it died.
        while let Some(id) = child.line() {
            acknowledged.push(id);
        }

        let store = home.open().await;
        let mut events: HashMap<String, usize> = HashMap::new();
        let mut after = None;
        loop {
            let page = store.read_page(&EventFilter::all(), after, PageSize::default()).await.unwrap();
            for event in page.events {
                let expected = after.map_or(1, |position: eventcore::GlobalPosition| position.get() + 1);
                assert_eq!(event.position().get(), expected, "positions have no gaps");
                after = Some(event.position());
                *events.entry(String::from_utf8(event.payload().bytes().to_vec()).unwrap()).or_default() += 1;
            }
            if !page.more {
                break;
            }
        }
        for id in &acknowledged {
            assert!(events.contains_key(id), "{id} was acknowledged and is lost");
        }
        for (id, count) in events {
            assert_eq!(count, 3, "{id} is there in part");
        }
        store.close().await.unwrap();
        let check: String = home.raw().query_row("pragma integrity_check", [], |row| row.get(0)).unwrap();
        assert_eq!(check, "ok");
    }
}
