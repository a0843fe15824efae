//! Another process: this test binary again, told by a variable of its environment what to do.

use crate::support::{Home, PATIENCE, append, event, patient, stream};
use eventcore::{AppendRequest, EventStore, ProjectionName, ProjectorCoordinator};
use eventcore_sqlite::SqliteEventStore;
use std::io::{BufRead, BufReader, Write};
use std::process::{ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};

const ROLE: &str = "EVENTCORE_SQLITE_TEST_ROLE";
const FILE: &str = "EVENTCORE_SQLITE_TEST_FILE";
/// Begins the lines that are meant for the parent; the test harness writes others.
const MARK: &str = "@ ";

/// A running child. It is killed when this is dropped.
pub(crate) struct Child {
    process: std::process::Child,
    input: Option<ChildStdin>,
    output: Receiver<String>,
}

impl Child {
    pub(crate) fn start(role: &str, home: &Home) -> Self {
        let mut process = Command::new(std::env::current_exe().unwrap())
            .args(["child::play_role", "--exact", "--nocapture", "--test-threads=1"])
            .env(ROLE, role)
            .env(FILE, home.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .unwrap();
        let input = process.stdin.take();
        let lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let (sender, output) = channel();
        // In a thread of its own, so that a child that hangs does not hang the tests.
        std::thread::spawn(move || lines.map_while(Result::ok).try_for_each(|line| sender.send(line)));
        Self { process, input, output }
    }

    /// The next line that the child says; `None` when it has ended.
    pub(crate) fn line(&mut self) -> Option<String> {
        loop {
            let line = match self.output.recv_timeout(PATIENCE) {
                Ok(line) => line,
                Err(RecvTimeoutError::Disconnected) => return None,
                Err(RecvTimeoutError::Timeout) => panic!("the child says nothing"),
            };
            // The harness writes the test's name without a line's end before the first one.
            if let Some((_, said)) = line.split_once(MARK) {
                // A line that a kill cut off is none.
                return said.ends_with('.').then(|| said.trim_end_matches('.').to_owned());
            }
        }
    }

    pub(crate) fn tell(&mut self, line: &str) {
        writeln!(self.input.as_mut().unwrap(), "{line}").unwrap();
    }

    /// SIGKILL.
    pub(crate) fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    /// Waits for an end without an error.
    pub(crate) fn end(mut self) {
        drop(self.input.take());
        while self.line().is_some() {}
        assert!(self.process.wait().unwrap().success());
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

/// Says a line to the parent. The full stop tells it from one that was cut off.
pub(crate) fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{MARK}{line}.").unwrap();
    out.flush().unwrap();
}

fn hear() -> String {
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).unwrap();
    line
}

/// What a child does. In the parent there is no role, and nothing happens.
#[test]
fn play_role() {
    let (Ok(role), Ok(file)) = (std::env::var(ROLE), std::env::var(FILE)) else { return };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let store = SqliteEventStore::open_with(file, patient()).await.unwrap();
        match role.as_str() {
            "append under load" => append_under_load(store).await,
            "append 200" => append_200(store).await,
            "append when told" => append_when_told(store).await,
            "lead" => lead(store).await,
            "rebuild" => crate::rebuilding::rebuild(store).await,
            "project" => crate::exactly_once::project(store).await,
            "be killed" => crate::kills::work(store).await,
            "be killed with letters" => crate::kills_letters::work(store).await,
            other => panic!("no role {other}"),
        }
    });
}

/// Appends events in threes to two streams, without end, and says what was acknowledged.
async fn append_under_load(store: SqliteEventStore) {
    let process = std::process::id();
    let workers: Vec<_> = (0..16)
        .map(|worker| {
            let store = store.clone();
            tokio::spawn(async move {
                for n in 0.. {
                    let id = format!("{process}-{worker}-{n}");
                    let request = AppendRequest::builder()
                        .event(stream(&format!("worker-{worker}")), event(&id))
                        .event(stream("shared"), event(&id))
                        .event(stream(&format!("worker-{worker}")), event(&id));
                    store.append(request.build().unwrap()).await.unwrap();
                    say(&id);
                }
            })
        })
        .collect();
    for worker in workers {
        worker.await.unwrap();
    }
}

async fn append_200(store: SqliteEventStore) {
    for n in 0..200 {
        append(&store, &format!("s-{}", n % 3), &n.to_string()).await.unwrap();
    }
    store.close().await.unwrap();
}

async fn append_when_told(store: SqliteEventStore) {
    say("ready");
    while hear().starts_with("append") {
        append(&store, "s", "told").await.unwrap();
        say("appended");
    }
    store.close().await.unwrap();
}

async fn lead(store: SqliteEventStore) {
    let leadership = store.acquire(&ProjectionName::new("p").unwrap()).await.unwrap();
    say(&leadership.epoch().to_string());
    hear();
    store.release(leadership).await.unwrap();
    store.close().await.unwrap();
}
