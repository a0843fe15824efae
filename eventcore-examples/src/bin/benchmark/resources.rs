//! What a measurement cost: processor time and memory, as Linux tells; elsewhere it is left out.

use eventcore_postgres::sqlx::{self, Connection, PgConnection};
use std::fs;

/// A tick of the times in `/proc/PID/stat`: Linux shows programs 100 a second on every architecture.
const TICKS_PER_SECOND: f64 = 100.0;

/// Whose processor time is measured.
#[derive(Debug, Clone, Default)]
pub(crate) struct Meter {
    /// The server's first process, where it runs on this machine.
    server: Option<u32>,
}

/// The times at one moment.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Reading {
    client: Option<f64>,
    server: Option<f64>,
}

/// What was spent between two moments.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Cost {
    /// Processor seconds of this process.
    pub(crate) client_cpu: Option<f64>,
    /// Processor seconds of all processes of the server.
    pub(crate) server_cpu: Option<f64>,
    /// The highest resident memory of this process, in bytes.
    pub(crate) peak_rss: Option<u64>,
}

impl Cost {
    /// Processor time of client and server for each of `operations`, in microseconds.
    pub(crate) fn cpu_micros(&self, operations: u64) -> Option<f64> {
        let seconds = self.client_cpu? + self.server_cpu.unwrap_or_default();
        (operations > 0).then(|| seconds * 1e6 / operations as f64)
    }

    /// Adds what was spent later.
    pub(crate) fn add(&mut self, later: Self) {
        let sum = |a: Option<f64>, b: Option<f64>| a.map_or(b, |a| Some(a + b.unwrap_or_default()));
        self.client_cpu = sum(self.client_cpu, later.client_cpu);
        self.server_cpu = sum(self.server_cpu, later.server_cpu);
        self.peak_rss = self.peak_rss.max(later.peak_rss);
    }
}

impl Meter {
    /// Measures this process alone.
    pub(crate) fn of_this_process() -> Self {
        Self::default()
    }

    /// Measures a PostgreSQL server too, if it runs here.
    pub(crate) async fn with_server(url: &str) -> Result<Self, sqlx::Error> {
        let mut connection = PgConnection::connect(url).await?;
        let local: bool = sqlx::query_scalar(
            "select coalesce(inet_server_addr() <<= '127.0.0.0/8' or inet_server_addr() = '::1', true)",
        )
        .fetch_one(&mut connection)
        .await?;
        let backend: i32 = sqlx::query_scalar("select pg_backend_pid()").fetch_one(&mut connection).await?;
        connection.close().await?;
        let parent = u32::try_from(backend).ok().filter(|_| local).and_then(|pid| Some(Process::read(pid)?.parent));
        Ok(Self { server: parent.filter(|&pid| pid > 1) })
    }

    /// Begins a measurement: forgets the highest memory so far.
    pub(crate) fn start(&self) -> Reading {
        // Where this is not possible, the highest memory is that since the program began.
        let _ = fs::write("/proc/self/clear_refs", "5");
        self.read()
    }

    /// What was spent since.
    pub(crate) fn spent(&self, since: Reading) -> Cost {
        let now = self.read();
        let difference = |now: Option<f64>, then: Option<f64>| Some(now? - then?);
        Cost {
            client_cpu: difference(now.client, since.client),
            server_cpu: difference(now.server, since.server),
            peak_rss: peak_rss(),
        }
    }

    fn read(&self) -> Reading {
        let client = Process::read(std::process::id()).map(|process| process.own);
        let server = self.server.and_then(|postmaster| {
            let first = Process::read(postmaster)?;
            // Sessions that ended are in the first process' account of its children.
            let sessions = processes().filter(|process| process.parent == postmaster).map(|process| process.own);
            Some(first.own + first.children + sessions.sum::<f64>())
        });
        Reading { client, server }
    }
}

/// A line of `/proc/PID/stat`, times in seconds.
struct Process {
    parent: u32,
    own: f64,
    children: f64,
}

impl Process {
    fn read(pid: u32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name before it may hold anything, parentheses too.
        let (_, rest) = stat.rsplit_once(')')?;
        let fields: Vec<&str> = rest.split_whitespace().collect();
        let ticks = |index: usize| fields.get(index)?.parse::<f64>().ok();
        Some(Self {
            parent: fields.get(1)?.parse().ok()?,
            own: (ticks(11)? + ticks(12)?) / TICKS_PER_SECOND,
            children: (ticks(13)? + ticks(14)?) / TICKS_PER_SECOND,
        })
    }
}

fn processes() -> impl Iterator<Item = Process> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| Process::read(entry.file_name().to_str()?.parse().ok()?))
}

fn peak_rss() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1_024)
}
