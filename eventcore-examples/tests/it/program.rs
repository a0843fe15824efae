//! The program `bank`, run as a process.

use crate::generated_file::{GeneratedFile, HEADER};
use eventcore::EventStore;
use eventcore_sqlite::SqliteEventStore;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// A directory of its own for the program to run in.
struct Bank {
    directory: TempDir,
}

impl Bank {
    fn new() -> Self {
        Self { directory: tempfile::tempdir().unwrap() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn write(&self, name: &str, text: impl AsRef<[u8]>) {
        fs::write(self.path(name), text).unwrap();
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_bank"));
        command.current_dir(self.directory.path()).args(arguments).stdin(Stdio::null());
        command
    }

    fn run(&self, arguments: &[&str]) -> Answer {
        Answer::of(self.command(arguments).output().unwrap())
    }

    /// Runs the program, which must succeed, and answers what it printed.
    fn ok(&self, arguments: &[&str]) -> String {
        let answer = self.run(arguments);
        assert_eq!((answer.status, answer.stderr.as_str()), (Some(0), ""), "{arguments:?}: {}", answer.stdout);
        answer.stdout
    }

    /// The number of events in `bank.db`.
    fn head(&self) -> u64 {
        self.wait_for_head(0)
    }

    /// Waits until `bank.db` holds at least so many events, and tells how many there are.
    fn wait_for_head(&self, at_least: u64) -> u64 {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let deadline = Instant::now() + Duration::from_secs(600);
            while !self.path("bank.db").exists() {
                assert!(Instant::now() < deadline, "there is no bank.db");
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            let store = SqliteEventStore::open(self.path("bank.db")).await.unwrap();
            loop {
                let head = store.head().await.unwrap().map_or(0, |position| position.get());
                if head >= at_least {
                    store.close().await.unwrap();
                    return head;
                }
                assert!(Instant::now() < deadline, "the log stays at {head}, {at_least} were expected");
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        })
    }
}

/// How the program ended and what it said.
#[derive(Debug)]
struct Answer {
    status: Option<i32>,
    stdout: String,
    stderr: String,
}

impl Answer {
    fn of(output: Output) -> Self {
        let text = |bytes| String::from_utf8(bytes).unwrap();
        let (stdout, stderr) = (text(output.stdout), text(output.stderr));
        // A program that ends by a signal of its own accord has crashed.
        let status = output.status.code();
        assert!(status.is_some(), "{}: {stdout}{stderr}", output.status);
        Self { status, stdout, stderr }
    }

    /// A number of the summary line.
    fn count(&self, key: &str) -> u64 {
        let entry = self.stdout.split(' ').find_map(|entry| entry.strip_prefix(&format!("{key}=")));
        entry.unwrap_or_else(|| panic!("no {key} in {self:?}")).parse().unwrap()
    }
}

#[test]
fn without_arguments_it_shows_that_no_money_is_made_or_lost_and_leaves_nothing_behind() {
    let bank = Bank::new();
    for _ in 0..2 {
        let shown = bank.ok(&[]);
        assert!(shown.contains("8000.00 was paid in, the accounts hold 8000.00: no money was made or lost"), "{shown}");
        assert!(shown.contains("events of alice:"), "{shown}");
    }
    assert_eq!(fs::read_dir(bank.directory.path()).unwrap().count(), 0);
}

#[test]
fn on_a_store_that_is_kept_the_demonstration_goes_on_where_it_was() {
    let bank = Bank::new();
    bank.ok(&["--store", "sqlite:bank.db"]);
    let shown = bank.ok(&["--store", "sqlite:bank.db"]);
    assert!(shown.contains("16000.00 was paid in, the accounts hold 16000.00: no money was made or lost"), "{shown}");
    assert!(bank.ok(&["balances"]).contains("16000.00"));
    assert!(bank.ok(&["--store", "memory"]).contains("the accounts hold 8000.00"));
}

#[test]
fn accounts_are_kept_by_hand() {
    let bank = Bank::new();
    assert_eq!(bank.ok(&["open", "alice", "--owner", "Alice Smith"]), "opened alice\n");
    bank.ok(&["open", "bob", "--overdraft", "5"]);
    bank.ok(&["open", "carol", "--overdraft", "unlimited"]);
    assert_eq!(bank.ok(&["deposit", "alice", "100", "--date", "2024-05-01"]), "deposited 100.00 into alice\n");
    bank.ok(&["transfer", "alice", "bob", "30.50", "--id", "rent", "--date", "2024-05-02", "--text", "rent of May"]);
    bank.ok(&["withdraw", "bob", "35.5", "--date", "2024-05-03"]);
    let expected = "\
account           balance  owner
alice               69.50  Alice Smith
bob                 -5.00
carol                0.00
total               64.50
";
    assert_eq!(bank.ok(&["balances"]), expected);
    let history = bank.ok(&["history", "alice"]);
    let lines: Vec<Vec<&str>> = history.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(lines[0][2..], ["0.00", "0.00", "opened", "by", "Alice", "Smith"]);
    assert_eq!(lines[1], ["2", "2024-05-01", "100.00", "100.00", "deposited"]);
    assert_eq!(lines[2], ["3", "2024-05-02", "-30.50", "69.50", "sent", "to", "bob:", "rent", "of", "May"]);
    assert_eq!(lines.len(), 3);
}

#[test]
fn what_is_asked_for_twice_under_one_id_is_done_once() {
    let bank = Bank::new();
    for open in ["alice", "bob"] {
        bank.ok(&["open", open, "--command-id", &format!("open-{open}")]);
    }
    bank.ok(&["deposit", "alice", "10", "--command-id", "d1"]);
    bank.ok(&["transfer", "alice", "bob", "10", "--id", "t1"]);
    let head = bank.head();
    for again in [
        &["open", "alice", "--command-id", "open-alice"][..],
        &["deposit", "alice", "10", "--command-id", "d1"],
        &["transfer", "alice", "bob", "10", "--id", "t1"],
        &["transfer", "alice", "bob", "11", "--id", "t1"],
    ] {
        assert_eq!(bank.ok(again), "a command of this id was done before; nothing happened now\n", "{again:?}");
    }
    assert_eq!(bank.head(), head);
    let reused = bank.run(&["deposit", "bob", "10", "--command-id", "d1"]);
    assert_eq!(reused.status, Some(1));
    assert_eq!(reused.stderr, "bank: command id d1 was used before, for another command type or other streams\n");
}

#[test]
fn what_the_bank_refuses_is_told_in_one_line_and_ends_with_1() {
    let bank = Bank::new();
    bank.ok(&["open", "alice"]);
    bank.ok(&["deposit", "alice", "1"]);
    for (arguments, reason) in [
        (&["open", "alice"][..], "account alice is open already"),
        (&["deposit", "bob", "1"], "account bob is not open"),
        (&["history", "bob"], "account bob is not open"),
        (&["withdraw", "alice", "1.01"], "account alice holds 1.00, which is not enough for 1.01"),
        (&["transfer", "alice", "alice", "1"], "account alice cannot send money to itself"),
        (&["transfer", "alice", "bob", "1"], "account bob is not open"),
    ] {
        let answer = bank.run(arguments);
        assert_eq!((answer.status, answer.stderr), (Some(1), format!("bank: {reason}\n")), "{arguments:?}");
    }
    assert_eq!(bank.head(), 2);
}

#[test]
fn a_command_line_that_makes_no_sense_ends_with_64_and_says_why() {
    let bank = Bank::new();
    for (arguments, reason) in [
        (&["depsit"][..], "'deposit'"),
        (&["deposit", "alice"], "<AMOUNT>"),
        (&["deposit", "alice", "0"], "Money: \"0\" is not an amount of more than nothing"),
        (&["deposit", "alice", "-5"], "Money: \"-5\" is not an amount of money such as 12.50"),
        (&["transfer", "alice", "bob", "-5"], "Money: \"-5\" is not an amount of money such as 12.50"),
        (&["deposit", "alice", "5", "--date", "tomorrow"], "expected a day of the calendar as YYYY-MM-DD"),
        (&["deposit", "alice", "5", "--date", "2026-02-30"], "expected a day of the calendar as YYYY-MM-DD"),
        (&["open", "alice", "--overdraft", "-5"], "expected none, unlimited, or an amount"),
        (&["deposit", "alice", "1.005"], "\"1.005\" is not an amount of money such as 12.50"),
        (&["deposit", "al ice", "1"], "AccountId: \"al ice\" is not an id of ASCII letters"),
        (&["open", "alice", "--overdraft", "much"], "expected none, unlimited, or an amount"),
        (
            &["--store", "oracle:x", "balances"],
            "\"oracle:x\" names no store: expected memory, sqlite:PATH or postgres://..",
        ),
        (&["--store", "sqlite:", "balances"], "names no store"),
        (&["import", "file", "--in-flight", "0"], "expected a number from 1 to 10000"),
    ] {
        let answer = bank.run(arguments);
        assert_eq!(answer.status, Some(64), "{arguments:?}");
        assert!(answer.stderr.contains(reason), "{arguments:?}: {}", answer.stderr);
    }
    assert_eq!(fs::read_dir(bank.directory.path()).unwrap().count(), 0, "nothing was opened");
    assert!(bank.ok(&["--help"]).contains("Exit status:"));
}

#[test]
fn a_store_or_file_that_cannot_be_used_is_named_with_the_reason() {
    let bank = Bank::new();
    bank.write("text.db", "this is no database, whatever its name says".repeat(100));
    fs::create_dir(bank.path("directory")).unwrap();
    for (arguments, reason) in [
        (&["--store", "sqlite:text.db", "balances"][..], "bank: cannot open sqlite:text.db: "),
        (&["--store", "sqlite:directory", "balances"], "bank: cannot open sqlite:directory: "),
        (&["--store", "sqlite:missing/bank.db", "balances"], "bank: cannot open sqlite:missing/bank.db: "),
        (&["import", "missing.asc"], "bank: cannot read \"missing.asc\": "),
        (&["import", "directory"], "bank: cannot read \"directory\": is a directory"),
    ] {
        let answer = bank.run(arguments);
        assert_eq!((answer.status, answer.stdout.as_str()), (Some(1), ""), "{arguments:?}");
        assert!(answer.stderr.starts_with(reason), "{arguments:?}: {}", answer.stderr);
        assert_eq!(answer.stderr.lines().count(), 1, "{}", answer.stderr);
    }
    assert_eq!(fs::read_to_string(bank.path("text.db")).unwrap().len(), 4300, "left as it was");
}

#[test]
fn a_reader_that_has_seen_enough_is_no_failure() {
    let bank = Bank::new();
    bank.ok(&["open", "alice"]);
    let mut child = bank.command(&["balances"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let answer = Answer::of(child.wait_with_output().unwrap());
    assert_eq!((answer.status, answer.stderr.as_str()), (Some(0), ""));
}

#[test]
fn an_import_run_twice_has_one_effect() {
    let file = GeneratedFile::new(2_000, 60);
    let bank = Bank::new();
    // Cut off in the middle, as files are.
    bank.write("trans.asc", file.text() + "99991;4;940331;\"PRIJE");
    let first = bank.run(&["import", "trans.asc"]);
    assert_eq!(first.stdout, file.summary(2_000, 0, 1));
    assert_eq!(first.status, Some(2));
    assert_eq!(
        first.stderr,
        "line 2002: malformed: a quote is not closed; the line may be cut off: it ends with \
         \"99991;4;940331;\\\"PRIJE\"\n"
    );
    let head = bank.head();
    assert_eq!(head, 2_060, "60 accounts opened, 2,000 rows");
    let balances = bank.ok(&["balances"]);

    let second = bank.run(&["import", "trans.asc"]);
    assert_eq!((second.stdout, second.status), (file.summary(0, 2_000, 1), Some(2)));
    assert_eq!((bank.head(), bank.ok(&["balances"])), (head, balances));
}

#[test]
fn a_file_without_a_broken_line_ends_with_0_in_any_store() {
    let file = GeneratedFile::new(300, 10);
    let bank = Bank::new();
    bank.write("trans.asc", file.text());
    assert_eq!(bank.ok(&["--store", "memory", "import", "trans.asc"]), file.summary(300, 0, 0));
    assert_eq!(bank.ok(&["import", "trans.asc", "--in-flight", "1"]), file.summary(300, 0, 0));
}

#[test]
fn malformed_rows_are_told_with_their_lines_and_the_rest_goes_on() {
    let file = GeneratedFile::new(100, 5);
    let bank = Bank::new();
    let mut lines = file.rows.clone();
    lines.insert(10, "1;2;930230;\"PRIJEM\";\"\";1.00;1.00;\"\";;\r\n".to_owned());
    lines.insert(50, "nonsense\r\n".to_owned());
    lines.insert(51, "1;2;930201;\"PRIJEM;\"\";1.00;1.00;\"\";;\r\n".to_owned());
    bank.write("trans.asc", HEADER.to_owned() + &lines.concat());
    let answer = bank.run(&["import", "trans.asc"]);
    assert_eq!((answer.stdout, answer.status), (file.summary(100, 0, 3), Some(2)));
    let mut told: Vec<&str> = answer.stderr.lines().collect();
    told.sort_unstable();
    assert_eq!(told.len(), 3, "{told:?}");
    assert_eq!(told[0], "line 12: malformed: field date: \"930230\" is not a day as YYMMDD");
    assert_eq!(told[1], "line 52: malformed: 1 fields, a row has 10");
    assert!(told[2].starts_with("line 53: malformed: a quote is not closed"), "{told:?}");
}

#[test]
fn a_refused_row_is_told_and_ends_with_2() {
    let bank = Bank::new();
    bank.ok(&["open", "berka-7"]);
    bank.write("trans.asc", "5;7;930101;\"VYDAJ\";\"\";5.00;-5.00;\"\";;\n");
    let answer = bank.run(&["import", "trans.asc"]);
    assert_eq!(answer.status, Some(2));
    let refusal = "account berka-7 holds 0.00, which is not enough for 5.00";
    assert_eq!(answer.stderr, format!("line 1: transaction 5: refused: the command was rejected: {refusal}\n"));
    assert_eq!((answer.count("accepted"), answer.count("rejected")), (0, 1));
}

/// An import that reads a pipe, so that it cannot come to its end before the test lets it.
struct PipedImport {
    child: Child,
    feeder: JoinHandle<Option<std::process::ChildStdin>>,
}

impl PipedImport {
    fn start(bank: &Bank, text: String) -> Self {
        let mut child = bank
            .command(&["import", "/dev/stdin"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut pipe = child.stdin.take().unwrap();
        // In a thread of its own: a pipe holds little. A process that was killed breaks it, which ends the thread.
        let feeder = std::thread::spawn(move || pipe.write_all(text.as_bytes()).is_ok().then_some(pipe));
        Self { child, feeder }
    }
}

#[cfg(unix)]
#[test]
fn killed_at_any_moment_and_run_again_it_comes_to_the_same_end() {
    let file = GeneratedFile::new(3_000, 40);
    let bank = Bank::new();
    bank.write("trans.asc", file.text());
    for round in 1..=3 {
        let rows = round * 900;
        let text = HEADER.to_owned() + &file.rows[..rows].concat();
        let mut import = PipedImport::start(&bank, text);
        // In the middle of the rows that are on their way, and never past them.
        let head = bank.wait_for_head(rows as u64 - 600);
        import.child.kill().unwrap();
        let status = import.child.wait().unwrap();
        import.feeder.join().unwrap();
        assert_eq!(status.code(), None, "ended by the signal");
        assert!(head <= rows as u64 + 40, "{head}");
    }
    let stored = bank.head();
    assert!((2_100..=2_740).contains(&stored), "{stored}");

    let last = bank.run(&["import", "trans.asc"]);
    let known = usize::try_from(last.count("known")).unwrap();
    assert_eq!((last.stdout, last.status), (file.summary(3_000 - known, known, 0), Some(0)));
    assert!((2_060..=2_700).contains(&known), "{known}");
    assert_eq!(bank.head(), 3_040, "40 accounts opened, 3,000 rows");

    let clean = Bank::new();
    clean.write("trans.asc", file.text());
    assert_eq!(clean.ok(&["import", "trans.asc"]), file.summary(3_000, 0, 0));
    assert_eq!(bank.ok(&["balances"]), clean.ok(&["balances"]));
}

#[cfg(unix)]
#[test]
fn interrupted_it_finishes_what_is_in_flight_and_goes_on_when_run_again() {
    let file = GeneratedFile::new(1_000, 10);
    let bank = Bank::new();
    bank.write("trans.asc", file.text());
    let mut import = PipedImport::start(&bank, HEADER.to_owned() + &file.rows[..300].concat());
    bank.wait_for_head(200);
    let interrupt = Command::new("kill").args(["-INT", &import.child.id().to_string()]).status().unwrap();
    assert!(interrupt.success());
    let mut stderr = BufReader::new(import.child.stderr.take().unwrap());
    let mut line = String::new();
    stderr.read_line(&mut line).unwrap();
    assert_eq!(line, "bank: finishing what is in flight; press Ctrl-C again to leave at once\n");
    // The reader waits for a line; this one shows it that it is to stop.
    let mut pipe = import.feeder.join().unwrap().expect("the process still reads");
    pipe.write_all(file.rows[300].as_bytes()).unwrap();
    drop(pipe);
    let mut said = String::new();
    stderr.read_to_string(&mut said).unwrap();
    let answer = Answer::of(import.child.wait_with_output().unwrap());
    assert_eq!(answer.status, Some(130));
    assert_eq!(said, "bank: interrupted; run the same import again and it goes on from here\n");
    let first = usize::try_from(answer.count("accepted")).unwrap();
    assert!((190..=301).contains(&first), "{first}");

    let rest = bank.run(&["import", "trans.asc"]);
    assert_eq!((rest.stdout, rest.status), (file.summary(1_000 - first, first, 0), Some(0)));
}

/// A program that goes on until it is told to stop, and what it prints.
struct Running {
    child: Child,
    lines: std::io::Lines<BufReader<std::process::ChildStdout>>,
}

impl Running {
    fn start(bank: &Bank, arguments: &[&str]) -> Self {
        let mut command = bank.command(arguments);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, lines }
    }

    /// Reads lines until this one.
    fn until(&mut self, wanted: &str) {
        loop {
            let line = self.lines.next().unwrap_or_else(|| panic!("it ended before {wanted:?}")).unwrap();
            if line == wanted {
                return;
            }
        }
    }

    fn signal(&self, name: &str) {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").args([name, &id]).status().unwrap().success());
    }

    fn end(self) -> Answer {
        drop(self.lines);
        Answer::of(self.child.wait_with_output().unwrap())
    }
}

#[cfg(unix)]
#[test]
fn a_watcher_shows_what_other_processes_transfer_and_ends_cleanly() {
    let bank = Bank::new();
    bank.ok(&["open", "alice"]);
    bank.ok(&["open", "bob"]);
    bank.ok(&["deposit", "alice", "10"]);
    for signal in ["-INT", "-TERM"] {
        let mut watcher = Running::start(&bank, &["watch"]);
        watcher.until("bob 0.00");
        bank.ok(&["transfer", "alice", "bob", "2.50"]);
        watcher.until("bob 2.50");
        bank.ok(&["transfer", "bob", "alice", "2.50"]);
        watcher.until("bob 0.00");
        watcher.signal(signal);
        let answer = watcher.end();
        assert_eq!((answer.status, answer.stderr.as_str()), (Some(0), ""), "{signal}");
    }
}

/// What a word stands before in a line of a table, by the table's first column.
fn row<'a>(table: &'a str, name: &str) -> Vec<&'a str> {
    let mut rows = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    rows.find(|row| row.first() == Some(&name)).unwrap_or_else(|| panic!("no {name} in {table}"))
}

#[test]
fn the_table_of_balances_is_rebuilt_and_its_lag_is_told() {
    let file = GeneratedFile::new(800, 20);
    let bank = Bank::new();
    bank.write("trans.asc", file.text());
    bank.ok(&["import", "trans.asc"]);
    assert!(bank.ok(&["projections"]).contains("no projection keeps anything"));
    for _ in 0..2 {
        let said = bank.ok(&["rebuild"]);
        assert!(said.starts_with("bank-balances was rebuilt: position 820 in "), "{said}");
    }
    let projections = bank.ok(&["projections"]);
    assert_eq!(row(&projections, "bank-balances")[1..4], ["820", "820", "0"], "{projections}");
    bank.ok(&["open", "alice"]);
    bank.ok(&["deposit", "alice", "1"]);
    let projections = bank.ok(&["projections"]);
    assert_eq!(row(&projections, "bank-balances")[1..4], ["820", "822", "2"], "{projections}");
    // The table holds what the log does.
    bank.ok(&["rebuild"]);
    let raw = eventcore_sqlite::rusqlite::Connection::open(bank.path("bank.db")).unwrap();
    let sum = "select sum(minor_units), count(*) from bank_balances";
    let (sum, accounts): (i64, i64) = raw.query_row(sum, [], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
    let balances = bank.ok(&["balances"]);
    let total = row(&balances, "total")[1].replace('.', "");
    assert_eq!((sum.to_string(), accounts), (total, 21));
}

#[cfg(unix)]
#[test]
fn a_rebuild_killed_or_interrupted_leaves_the_table_whole_and_goes_on() {
    let file = GeneratedFile::new(3_000, 40);
    let bank = Bank::new();
    bank.write("trans.asc", file.text());
    bank.ok(&["import", "trans.asc"]);
    bank.ok(&["rebuild"]);
    let held = || {
        let raw = eventcore_sqlite::rusqlite::Connection::open(bank.path("bank.db")).unwrap();
        raw.busy_timeout(Duration::from_secs(60)).unwrap();
        let sum = "select count(*), sum(minor_units) from bank_balances";
        raw.query_row(sum, [], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?))).unwrap()
    };
    let whole = held();
    assert_eq!(whole.0, 40);
    for signal in ["-KILL", "-TERM", "-INT", "-KILL"] {
        let mut rebuild = bank.command(&["rebuild"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        // However far it comes until it is told to stop, or whether it is done before that.
        while rebuild.try_wait().unwrap().is_none() {
            assert_eq!(held(), whole);
            if fastrand::u8(..) < 8 {
                let id = rebuild.id().to_string();
                // It may have ended by itself in between.
                let _ = Command::new("kill").args([signal, &id]).stderr(Stdio::null()).status().unwrap();
                break;
            }
        }
        rebuild.wait().unwrap();
        assert_eq!(held(), whole, "after {signal}");
    }
    assert!(bank.ok(&["rebuild"]).contains("position 3040"));
    assert_eq!(held(), whole);
}

#[test]
fn looking_at_a_store_that_does_not_exist_makes_none() {
    let bank = Bank::new();
    for arguments in [&["balances"][..], &["watch"], &["projections"], &["rebuild"], &["history", "alice"]] {
        let answer = bank.run(arguments);
        assert_eq!((answer.status, answer.stdout.as_str()), (Some(1), ""), "{arguments:?}");
        let said = "bank: cannot open sqlite:bank.db: there is no such file\n";
        assert_eq!(answer.stderr, said, "{arguments:?}");
    }
    assert_eq!(fs::read_dir(bank.directory.path()).unwrap().count(), 0, "nothing was made");
}
