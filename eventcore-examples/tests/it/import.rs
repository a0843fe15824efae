//! The import, on a store in memory.

use crate::generated_file::GeneratedFile;
use eventcore::{Backend, CommandError, EventReader, EventStore, EventStoreError, PageSize, StreamVersion, execute};
use eventcore_examples::bank::{BankError, BankEvent, OpenAccount, Overdraft};
use eventcore_examples::import::{
    ImportConfig, ImportError, ImportObserver, ImportRow, ImportSummary, RowError, run_import,
};
use eventcore_memory::MemoryEventStore;
use std::io::{self, BufRead, BufReader, Read};
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex};
use tokio_util::sync::CancellationToken;

/// Remembers what it is told; stops the import after so many bytes.
#[derive(Default)]
struct Notes {
    lines: Mutex<Vec<String>>,
    stop_after: Option<(u64, CancellationToken)>,
}

impl ImportObserver for Notes {
    fn progress(&self, bytes_read: u64) {
        if let Some((limit, stop)) = &self.stop_after
            && bytes_read > *limit
        {
            stop.cancel();
        }
    }

    fn malformed(&self, line: u64, _: &RowError) {
        self.lines.lock().unwrap().push(format!("{line} malformed"));
    }

    fn rejected(&self, line: u64, _: &ImportRow, error: &CommandError<BankError>) {
        let reason = match error {
            CommandError::Rejected(error) => error.to_string(),
            CommandError::Store(EventStoreError::CommandIdReused { .. }) => "id reused".to_owned(),
            other => panic!("{other:?}"),
        };
        self.lines.lock().unwrap().push(format!("{line} {reason}"));
    }
}

async fn import(store: &MemoryEventStore, text: String) -> (ImportSummary, Vec<String>) {
    import_with(store, text, ImportConfig::default()).await
}

async fn import_with(store: &MemoryEventStore, text: String, config: ImportConfig) -> (ImportSummary, Vec<String>) {
    let notes = Arc::new(Notes::default());
    let backend: Arc<dyn Backend> = Arc::new(store.clone());
    let input = io::Cursor::new(text.into_bytes());
    let summary = run_import(backend, input, config, Arc::clone(&notes) as Arc<dyn ImportObserver>).await.unwrap();
    let lines = notes.lines.lock().unwrap().clone();
    (summary, lines)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_balance_that_the_file_prints_comes_out_again() {
    let file = GeneratedFile::new(3_000, 40);
    let (summary, notes) = import(&MemoryEventStore::new(), file.text()).await;
    assert_eq!(format!("{summary}\n"), file.summary(3_000, 0, 0));
    assert_eq!((summary.is_clean(), summary.interrupted, notes), (true, false, vec![]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_rows_of_an_account_stay_in_order() {
    let file = GeneratedFile::new(2_000, 3);
    let store = MemoryEventStore::new();
    import(&store, file.text()).await;
    for account in ["1", "4", "7"] {
        let rows = file.rows.iter().map(|row| row.split(';').collect::<Vec<_>>()).filter(|row| row[1] == account);
        let expected: Vec<String> = rows.map(|row| row[5].to_owned()).collect();
        let stream = format!("account-berka-{account}").parse().unwrap();
        let page = store.read_stream(&stream, StreamVersion::default(), PageSize::default()).await.unwrap();
        let stored = page.events.into_iter().map(|event| event.decode::<BankEvent>().unwrap());
        let amounts: Vec<String> =
            stored.filter_map(|event| event.payload().booking().map(|booking| booking.amount.to_string())).collect();
        assert_eq!(amounts, expected, "account {account}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_amount_shows_as_days_that_do_not_match() {
    let mut file = GeneratedFile::new(200, 3);
    // The account's first row books ten crowns more than the printed balance knows of: all its days are off.
    let account = file.rows[0].split(';').nth(1).unwrap().to_owned();
    let of_account = |row: &&String| row.split(';').nth(1) == Some(&account);
    let days = file
        .rows
        .iter()
        .filter(of_account)
        .map(|row| row.split(';').nth(2).unwrap())
        .collect::<std::collections::BTreeSet<_>>()
        .len();
    let amount = file.rows[0].split(';').nth(5).unwrap().to_owned();
    let (whole, _) = amount.split_once('.').unwrap();
    let larger = amount.replacen(whole, &(whole.parse::<u64>().unwrap() + 10).to_string(), 1);
    file.rows[0] = file.rows[0].replacen(&amount, &larger, 1);
    let (summary, _) = import(&MemoryEventStore::new(), file.text()).await;
    assert_eq!(summary.matching.account_days - summary.matching.matching, days as u64);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_import_without_rows_says_so() {
    let (summary, _) = import(&MemoryEventStore::new(), String::new()).await;
    let nothing = "accepted=0 known=0 rejected=0 malformed=0 accounts=0 total_balance=0.00 account_days=0 matching=0";
    assert_eq!(summary.to_string(), nothing);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_that_the_bank_refuses_are_told_and_cost_only_themselves() {
    let store = MemoryEventStore::new();
    // Opened by hand, with no overdraft: what the file takes out is not there.
    let account = "berka-7".parse().unwrap();
    execute(&store, OpenAccount { account, owner: None, overdraft: Overdraft::None }).await.unwrap();
    let file = "1;7;930101;\"VYDAJ\";\"\";5.00;-5.00;\"\";;\n\
                2;7;930101;\"PRIJEM\";\"\";5.00;5.00;\"\";;\n\
                broken\n\
                3;8;930101;\"PRIJEM\";\"\";1.00;1.00;\"\";;\n\
                2;8;930102;\"PRIJEM\";\"\";2.00;3.00;\"\";;\n\
                2;7;930101;\"PRIJEM\";\"\";5.00;5.00;\"\";;\n";
    // One after the other, so that it is clear which of two rows with one number comes first.
    let config = ImportConfig { in_flight: NonZeroUsize::MIN, ..ImportConfig::default() };
    let (summary, mut notes) = import_with(&store, file.to_owned(), config).await;
    notes.sort();
    let short = "1 account berka-7 holds 0.00, which is not enough for 5.00";
    assert_eq!(notes, [short, "3 malformed", "5 id reused"]);
    let counts = (summary.accepted, summary.known, summary.rejected, summary.malformed);
    assert_eq!(counts, (2, 1, 2, 1), "the last row repeats the second one");
    assert_eq!((summary.total_balance, summary.is_clean()), ("6.00".parse().unwrap(), false));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stopped_and_run_again_it_comes_to_the_same_end() {
    let file = GeneratedFile::new(5_000, 30);
    let store = MemoryEventStore::new();
    let backend: Arc<dyn Backend> = Arc::new(store.clone());
    let stop = CancellationToken::new();
    let notes = Notes { stop_after: Some((file.text().len() as u64 / 2, stop.clone())), ..Notes::default() };
    let config = ImportConfig { in_flight: NonZeroUsize::new(8).unwrap(), stop };
    let input = io::Cursor::new(file.text().into_bytes());
    let summary = run_import(backend, input, config, Arc::new(notes)).await.unwrap();
    assert!(summary.interrupted);
    let first = usize::try_from(summary.accepted).unwrap();
    assert!((1..5_000).contains(&first), "{first}");

    let (summary, _) = import(&store, file.text()).await;
    assert_eq!(format!("{summary}\n"), file.summary(5_000 - first, first, 0));
    let head = store.head().await.unwrap();
    let (summary, _) = import(&store, file.text()).await;
    assert_eq!(format!("{summary}\n"), file.summary(0, 5_000, 0));
    assert_eq!(store.head().await.unwrap(), head);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_imports_of_one_file_at_once_have_one_effect() {
    let file = GeneratedFile::new(1_500, 20);
    let store = MemoryEventStore::new();
    let imports = [(); 2].map(|()| {
        let (store, text) = (store.clone(), file.text());
        tokio::spawn(async move { import(&store, text).await.0 })
    });
    let [first, second] = imports;
    let (first, second) = (first.await.unwrap(), second.await.unwrap());
    assert_eq!((first.accepted + second.accepted, first.rejected + second.rejected), (1_500, 0));
    assert_eq!(store.head().await.unwrap().unwrap().get(), 1_520, "20 accounts opened, 1,500 rows");
}

/// A file whose second half cannot be read.
struct BrokenDisk<R>(R, usize);

impl<R: Read> Read for BrokenDisk<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.1 == 0 {
            return Err(io::Error::other("bad sector"));
        }
        let length = buffer.len().min(self.1);
        let read = self.0.read(&mut buffer[..length])?;
        self.1 -= read;
        Ok(read)
    }
}

fn broken(text: String) -> impl BufRead + Send + 'static {
    let half = text.len() / 2;
    BufReader::with_capacity(100, BrokenDisk(io::Cursor::new(text.into_bytes()), half))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_cannot_be_read_to_its_end_is_an_error_and_what_was_read_stays() {
    let file = GeneratedFile::new(400, 10);
    let store = MemoryEventStore::new();
    let backend: Arc<dyn Backend> = Arc::new(store.clone());
    let failed = run_import(backend, broken(file.text()), ImportConfig::default(), Arc::new(Notes::default())).await;
    assert!(matches!(failed, Err(ImportError::Read { line: 190..=210, .. })), "{failed:?}");
    let (summary, _) = import(&store, file.text()).await;
    assert_eq!((summary.accepted + summary.known, summary.rejected), (400, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_is_closed_ends_the_import_at_once() {
    let store = MemoryEventStore::new();
    store.close().await.unwrap();
    let backend: Arc<dyn Backend> = Arc::new(store);
    let input = io::Cursor::new(GeneratedFile::new(5_000, 30).text().into_bytes());
    let failed = run_import(backend, input, ImportConfig::default(), Arc::new(Notes::default())).await;
    assert!(matches!(failed, Err(ImportError::Command { .. })), "{failed:?}");
}
