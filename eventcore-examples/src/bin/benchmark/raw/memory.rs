//! The limit in memory: a vector, and the rows of each stream by its name.

use super::{RawRow, fold};
use crate::Failure;
use crate::domain::{Account, Entry};
use eventcore::StreamName;
use std::collections::HashMap;
use uuid::Uuid;

#[derive(Default)]
pub(crate) struct RawMemory {
    rows: Vec<Row>,
    streams: HashMap<String, Vec<usize>>,
}

struct Row {
    _id: Uuid,
    payload: Box<[u8]>,
}

impl RawMemory {
    pub(crate) fn insert(&mut self, rows: &[RawRow]) -> usize {
        let mut inserted = 0;
        for row in rows {
            let stream = match self.streams.get_mut(row.stream.as_str()) {
                Some(stream) => stream,
                None => self.streams.entry(row.stream.clone()).or_default(),
            };
            if stream.len() as i64 == row.expected {
                stream.push(self.rows.len());
                self.rows.push(Row { _id: row.id, payload: row.payload.as_bytes().into() });
                inserted += 1;
            }
        }
        inserted
    }

    pub(crate) fn fold_all(&self) -> Result<HashMap<u32, i64>, Failure> {
        let mut balances = HashMap::new();
        self.rows.iter().try_for_each(|row| fold(&mut balances, &row.payload))?;
        Ok(balances)
    }

    pub(crate) fn fold_one(&self, account: Account) -> Result<i64, Failure> {
        let mut balance = 0;
        for &index in self.streams.get(account.stream_id()?.as_str()).into_iter().flatten() {
            balance += serde_json::from_slice::<Entry>(&self.rows[index].payload)?.amount;
        }
        Ok(balance)
    }
}
