//! A PostgreSQL server for tests, thrown away afterwards (feature `postgres`).

use std::collections::HashSet;
use std::fs;
use std::io::{self, Write};
use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;
use std::{env, process};

/// A server of its own, made from the `initdb`, `pg_ctl` and `postgres` on the PATH.
///
/// It runs as an ordinary user even when the tests run as root. It vanishes with its data when this value is dropped, and
/// also when the test process ends in any other way: a guard process waits for that.
#[derive(Debug)]
pub struct Cluster {
    directory: PathBuf,
    port: u16,
    user: Option<(u32, u32)>,
    guard: Child,
}

impl Cluster {
    /// Starts a server on a free port of the loopback interface, with these settings beside its defaults.
    ///
    /// Every role is let in without a password, except the role `guarded`, which is asked for one.
    ///
    /// # Errors
    /// What the system or the server's programs say.
    pub fn start(settings: &[(&str, &str)]) -> io::Result<Self> {
        let directory = env::temp_dir().join(format!("eventcore-postgres-{}-{}", process::id(), unique()));
        fs::create_dir(&directory)?;
        let user = ordinary_user(&directory)?;
        if let Some((uid, gid)) = user {
            chown(&directory, Some(uid), Some(gid))?;
        }
        // First of all, so that nothing stays behind even if the next line is the last.
        let guard = guard(&directory, user)?;
        let mut cluster = Self { directory, port: 0, user, guard };
        let data = cluster.data();
        cluster
            .run("initdb", &["-D", &data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync"])?;
        cluster.configure(settings)?;
        // Somebody else may take a port between the choice and its use.
        let mut tries = 0;
        loop {
            cluster.port = free_port()?;
            match cluster.start_again() {
                Ok(()) => return Ok(cluster),
                Err(error) if tries >= 5 => return Err(error),
                Err(_) => tries += 1,
            }
        }
    }

    /// The URL of a database of the server, for its superuser.
    #[must_use]
    pub fn url(&self, database: &str) -> String {
        format!("postgres://postgres@127.0.0.1:{}/{database}", self.port)
    }

    /// The port it listens on.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Stops the server as a crash would: nothing is finished, and it has to recover when it is started again.
    ///
    /// # Errors
    /// What the server's programs say.
    pub fn crash(&self) -> io::Result<()> {
        self.run("pg_ctl", &["stop", "-D", &self.data(), "-m", "immediate", "-s"])
    }

    /// Starts the server after it was stopped, on the same port.
    ///
    /// # Errors
    /// What the server's programs say.
    pub fn start_again(&self) -> io::Result<()> {
        let log = self.directory.join("log").display().to_string();
        let options = format!("-p {}", self.port);
        self.run("pg_ctl", &["start", "-D", &self.data(), "-w", "-s", "-l", &log, "-o", &options])
    }

    /// Starts the server, after it was stopped, as the standby of a primary that never answers.
    ///
    /// # Errors
    /// What the system or the server's programs say.
    pub fn start_as_standby(&self) -> io::Result<()> {
        fs::write(self.directory.join("data").join("standby.signal"), "")?;
        self.start_again()
    }

    fn data(&self) -> String {
        self.directory.join("data").display().to_string()
    }

    fn configure(&self, settings: &[(&str, &str)]) -> io::Result<()> {
        let mut text =
            String::from("listen_addresses = '127.0.0.1'\nunix_socket_directories = ''\nmax_connections = 400\n");
        for (name, value) in settings {
            text.push_str(&format!("{name} = '{value}'\n"));
        }
        let data = self.directory.join("data");
        fs::OpenOptions::new().append(true).open(data.join("postgresql.conf"))?.write_all(text.as_bytes())?;
        let rules = fs::read_to_string(data.join("pg_hba.conf"))?;
        fs::write(data.join("pg_hba.conf"), format!("host all guarded 127.0.0.1/32 scram-sha-256\n{rules}"))
    }

    fn run(&self, program: &str, arguments: &[&str]) -> io::Result<()> {
        let mut command = Command::new(program);
        // Files, not pipes: the server keeps what it is started with.
        let output = self.directory.join("output");
        let file = fs::File::create(&output)?;
        command.args(arguments).current_dir(&self.directory).env_remove("PGDATA").env("LC_ALL", "C");
        command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
        as_user(&mut command, self.user);
        let status = command.status().map_err(|error| io::Error::other(format!("{program} cannot be run: {error}")))?;
        if status.success() {
            return Ok(());
        }
        let log = fs::read_to_string(self.directory.join("log")).unwrap_or_default();
        Err(io::Error::other(format!("{program}: {status}\n{}{log}", fs::read_to_string(output)?)))
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        drop(self.guard.stdin.take());
        // There is nobody to tell; the guard goes on by itself.
        drop(self.guard.wait());
    }
}

/// The URL of a server to test with: `DATABASE_URL` if it is set, else that of a server which this process starts when it
/// is first asked for, and which vanishes with the process.
///
/// # Errors
/// What starting the server said, as text since it is said again to everybody who asks.
pub fn shared_url() -> Result<String, String> {
    static SHARED: OnceLock<Result<Cluster, String>> = OnceLock::new();
    if let Ok(url) = env::var("DATABASE_URL") {
        return Ok(url);
    }
    let settings = [("fsync", "off"), ("synchronous_commit", "on"), ("shared_preload_libraries", "pg_stat_statements")];
    let cluster = SHARED.get_or_init(|| Cluster::start(&settings).map_err(|error| error.to_string()));
    cluster.as_ref().map(|cluster| cluster.url("postgres")).map_err(Clone::clone)
}

/// A process that outlives this one for a moment: when the other end of its input is gone, it stops the server and removes
/// the directory. Its own process group keeps a Ctrl-C for the tests away from it.
fn guard(directory: &Path, user: Option<(u32, u32)>) -> io::Result<Child> {
    let script = "cat >/dev/null; pg_ctl stop -D \"$1/data\" -m immediate -s; cd /; rm -rf \"$1\"";
    let mut command = Command::new("sh");
    command.args(["-c", script, "sh"]).arg(directory).current_dir("/").process_group(0);
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    as_user(&mut command, user);
    command.spawn()
}

fn as_user(command: &mut Command, user: Option<(u32, u32)>) {
    if let Some((uid, gid)) = user {
        command.uid(uid).gid(gid);
    }
}

/// Whom to run the server as if this process runs as root, which the server refuses. The owner of a fresh directory is who
/// this process runs as.
fn ordinary_user(directory: &Path) -> io::Result<Option<(u32, u32)>> {
    if fs::metadata(directory)?.uid() != 0 {
        return Ok(None);
    }
    let users = fs::read_to_string("/etc/passwd")?;
    let find = |name: &str| {
        let mut fields = users.lines().map(|line| line.split(':')).find(|f| f.clone().next() == Some(name))?;
        Some((fields.nth(2)?.parse().ok()?, fields.next()?.parse().ok()?))
    };
    find("postgres").or_else(|| find("nobody")).map(Some).ok_or_else(|| io::Error::other("there is no ordinary user"))
}

/// A port that no server of this process has, also none that is stopped and will be started again. It is not one of those
/// that the system gives to outgoing connections, which could take it while its server is away.
fn free_port() -> io::Result<u16> {
    static TAKEN: Mutex<Option<HashSet<u16>>> = Mutex::new(None);
    let mut taken = TAKEN.lock().unwrap_or_else(PoisonError::into_inner);
    let taken = taken.get_or_insert_default();
    for _ in 0..1_000 {
        let port = fastrand::u16(20_000..32_000);
        if !taken.contains(&port) && TcpListener::bind(("127.0.0.1", port)).is_ok() {
            taken.insert(port);
            return Ok(port);
        }
    }
    Err(io::Error::other("there is no free port between 20,000 and 32,000"))
}

fn unique() -> u128 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.as_ref().map_or(0, Duration::as_nanos)
}
