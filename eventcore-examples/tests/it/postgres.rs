//! The program `bank` on a PostgreSQL server.

use crate::generated_file::GeneratedFile;
use eventcore::EventStore;
use eventcore_postgres::{PostgresConfig, PostgresEventStore};
use eventcore_testing::postgres::Cluster;
use std::fs;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

fn bank(url: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bank"));
    command.args(["--store", url]).args(arguments).stdin(Stdio::null());
    command
}

fn said(output: &Output) -> (String, Option<i32>) {
    (String::from_utf8(output.stdout.clone()).unwrap(), output.status.code())
}

/// Waits until the log holds at least so many events.
async fn wait_for_head(url: &str, at_least: u64) {
    let deadline = Instant::now() + Duration::from_secs(600);
    let store = PostgresEventStore::connect(url, PostgresConfig::default().migrate_on_connect(true)).await.unwrap();
    while store.head().await.unwrap().map_or(0, |position| position.get()) < at_least {
        assert!(Instant::now() < deadline, "the log does not grow");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    store.close().await.unwrap();
}

#[tokio::test]
async fn an_import_killed_and_run_again_gives_the_same_bank() {
    let cluster = Cluster::start(&[("fsync", "off")]).unwrap();
    let url = cluster.url("postgres");
    let file = GeneratedFile::new(1_500, 40);
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("trans.asc");
    fs::write(&path, file.text()).unwrap();
    let path = path.to_str().unwrap();

    let looked = bank(&url, &["balances"]).output().unwrap();
    assert_eq!(said(&looked), (String::new(), Some(1)), "looking at a database without a store");
    let made = PostgresEventStore::connect(&url, PostgresConfig::default()).await;
    assert!(made.is_err(), "looking made a store");

    for round in 1..=2 {
        let mut import = bank(&url, &["import", path]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        wait_for_head(&url, round * 300).await;
        import.kill().unwrap();
        import.wait().unwrap();
    }
    let (summary, status) = said(&bank(&url, &["import", path]).output().unwrap());
    let known = summary.split(' ').find_map(|entry| entry.strip_prefix("known=")).unwrap().parse().unwrap();
    assert!(known >= 500, "{summary}");
    assert_eq!((summary, status), (file.summary(1_500 - known, known, 0), Some(0)));
    assert_eq!(said(&bank(&url, &["import", path]).output().unwrap()), (file.summary(0, 1_500, 0), Some(0)));
    let balances = said(&bank(&url, &["balances"]).output().unwrap());
    let sqlite = format!("sqlite:{}", directory.path().join("b.db").display());
    let clean = said(&bank(&sqlite, &["import", path]).output().unwrap());
    assert_eq!(clean, (file.summary(1_500, 0, 0), Some(0)));
    assert_eq!(balances, said(&bank(&sqlite, &["balances"]).output().unwrap()));
}

#[test]
fn a_server_that_is_not_there_is_named_without_the_password() {
    let output = bank("postgres://alice:secret@127.0.0.1:1/bank", &["balances"]).output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(
        stderr.contains("postgres://alice:***@127.0.0.1:1/bank") && stderr.contains("cannot be reached"),
        "{stderr}"
    );
    assert!(!stderr.contains("secret"), "{stderr}");
    assert_eq!(stderr.matches("Connection refused").count(), 1, "each cause is told once: {stderr}");

    let output = bank("postgres://127.0.0.1:1/bank?user=alice&password=secret", &["balances"]).output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(stderr.contains("/bank?user=alice&password=***:") && !stderr.contains("secret"), "{stderr}");
}
