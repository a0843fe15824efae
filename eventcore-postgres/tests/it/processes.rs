//! Promises that need more than one process.

use crate::fixtures::{Log, PATIENCE, stream};
use eventcore::{EventStore, MaxAttempts, RetryPolicy};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Instant;

/// A process that a test started. It is killed when it is dropped.
pub(crate) struct Process {
    child: Child,
    input: Option<ChildStdin>,
    lines: Receiver<String>,
}

impl Process {
    /// Starts a process, which waits for [`go`](Self::go).
    pub(crate) fn start(part: &str, log: &Log, number: usize) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["worker::process", "--exact", "--nocapture", "--test-threads=1"])
            .env("EVENTCORE_TEST_PART", part)
            .env("LOG_URL", &log.url)
            .env("LOG_SCHEMA", log.schema.as_str())
            .env("NUMBER", number.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (sender, lines) = channel();
        let output = BufReader::new(child.stdout.take().unwrap());
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                if let Some(said) = line.strip_prefix("> ") {
                    let _nobody_listens = sender.send(said.to_owned());
                }
            }
        });
        let process = Self { input: child.stdin.take(), child, lines };
        assert_eq!(process.next(), "ready");
        process
    }

    pub(crate) fn go(&mut self) {
        self.input.as_mut().unwrap().write_all(b"go\n").unwrap();
    }

    /// The next thing that it says.
    pub(crate) fn next(&self) -> String {
        self.lines.recv_timeout(PATIENCE).expect("the process says nothing")
    }

    /// What it says next, if it says it by then.
    pub(crate) fn next_by(&self, deadline: Instant) -> Option<String> {
        match self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(line) => Some(line),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => panic!("the process is gone"),
        }
    }

    /// Closes its input, which ends its work, and tells everything that it says until it is done.
    pub(crate) fn finish(&mut self) -> Vec<String> {
        drop(self.input.take());
        self.rest()
    }

    /// Everything that it says until it is done.
    pub(crate) fn rest(&mut self) -> Vec<String> {
        let mut said = Vec::new();
        loop {
            match self.next() {
                line if line == "done" => break,
                line => said.push(line),
            }
        }
        assert!(self.child.wait().unwrap().success());
        said
    }

    /// SIGKILL. Tells everything that it had said.
    pub(crate) fn kill(mut self) -> Vec<String> {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.lines.iter().collect()
    }

    pub(crate) fn signal(&self, signal: &str) {
        let status = Command::new("kill").args([signal, &self.child.id().to_string()]).status().unwrap();
        assert!(status.success());
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// A policy for commands that fight over one stream.
pub(crate) fn patient() -> RetryPolicy {
    RetryPolicy::default().max_attempts(MaxAttempts::try_new(500).unwrap())
}

#[tokio::test]
async fn reading_one_and_writing_the_other_from_two_processes_never_commit_both() {
    let log = Log::new().unwrap();
    let mut processes = [Process::start("skew", &log, 0), Process::start("skew", &log, 1)];
    processes.iter_mut().for_each(Process::go);
    let won =
        processes.each_mut().map(|process| process.rest()[0].strip_prefix("won ").unwrap().parse::<u64>().unwrap());
    let both = "select count(*) from @.events a join @.events b on b.stream = 'b' || substr(a.stream, 2) where a.stream like 'a-%'";
    assert_eq!(log.number(both).await, 0, "rounds in which both committed");
    assert_eq!(won[0] + won[1], 10_000, "rounds in which one committed: {won:?}");
    assert_eq!(log.number("select count(*) from @.events").await, 10_000);
    println!("write skew: 10,000 rounds, won by {won:?}");
    log.remove().await.unwrap();
}

#[tokio::test]
async fn a_command_of_two_processes_at_once_has_one_effect_and_one_receipt() {
    let log = Log::new().unwrap();
    let mut processes = [Process::start("race", &log, 0), Process::start("race", &log, 1)];
    processes.iter_mut().for_each(Process::go);
    let mut receipts: BTreeMap<u64, Vec<(u64, bool)>> = BTreeMap::new();
    for line in processes.iter_mut().flat_map(Process::rest) {
        let words: Vec<&str> = line.split(' ').collect();
        let receipt = (words[2].parse().unwrap(), words[3].parse().unwrap());
        receipts.entry(words[1].parse().unwrap()).or_default().push(receipt);
    }
    assert_eq!(receipts.len(), 200);
    for (round, answers) in receipts {
        assert_eq!(answers[0].0, answers[1].0, "receipts of command {round}");
        assert_ne!(answers[0].1, answers[1].1, "of command {round} one execution is the replay");
    }
    assert_eq!(log.number("select count(*) from @.events").await, 200);
    log.remove().await.unwrap();
}

#[tokio::test]
async fn one_hot_stream_of_eight_processes_fails_nobody_and_rolls_nothing_back() {
    // A database of its own, so that its rollbacks are those of this test.
    let server = Log::new().unwrap();
    let database = format!("hot_{}", uuid::Uuid::now_v7().simple());
    server.run(&format!("create database {database}")).await.unwrap();
    let (place, _) = server.url.rsplit_once('/').unwrap();
    let log = Log::at(format!("{place}/{database}")).unwrap();
    let store = log.open().await.unwrap();
    let rolled_back = "select xact_rollback from pg_stat_database where datname = current_database()";
    let mut processes: Vec<_> = (0..8).map(|number| Process::start("hot", &log, number)).collect();
    let before = log.number(rolled_back).await;
    processes.iter_mut().for_each(Process::go);
    for process in &mut processes {
        assert!(process.rest().is_empty());
    }
    assert_eq!(store.stream_version(&stream("hot")).await.unwrap().get(), 8 * 4 * 10);
    store.close().await.unwrap();
    assert_eq!(log.number(rolled_back).await, before, "transactions rolled back");
    server.run(&format!("drop database {database} with (force)")).await.unwrap();
}
