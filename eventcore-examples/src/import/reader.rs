//! The rows of a file, one by one.

use super::{ImportRow, MAX_LINE_BYTES, RowError};
use std::io::{self, BufRead};

/// What the first line of the file begins with if it names the columns.
const HEADER: &[u8] = b"\"trans_id\";";

/// Reads rows line by line. A broken line is an item of its own and costs its neighbours nothing; memory is bounded by the
/// longest line allowed.
///
/// ```
/// use eventcore_examples::import::RowReader;
///
/// let file = "1;7;930101;\"PRIJEM\";\"VKLAD\";700.00;700.00;\"\";;\r\n2;7;93";
/// let rows = RowReader::new(file.as_bytes()).collect::<Result<Vec<_>, _>>()?;
/// assert_eq!(rows[0].row.as_ref().map(|row| row.booking.amount.minor_units()), Ok(70_000));
/// assert_eq!((rows[1].line, rows[1].row.is_err()), (2, true));
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug)]
pub struct RowReader<R> {
    input: R,
    line: Vec<u8>,
    number: u64,
    bytes: u64,
}

/// A row, or what is wrong with its line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NumberedRow {
    /// The number of the line, from 1.
    pub line: u64,
    /// The row.
    pub row: Result<ImportRow, RowError>,
}

impl<R: BufRead> RowReader<R> {
    /// Reads the rows of `input`.
    #[must_use]
    pub const fn new(input: R) -> Self {
        Self { input, line: Vec::new(), number: 0, bytes: 0 }
    }

    /// How much has been read, in bytes.
    #[must_use]
    pub const fn bytes_read(&self) -> u64 {
        self.bytes
    }

    /// Reads the next line, without its end, into `self.line`; of one that is too long only the beginning is kept.
    fn read_line(&mut self) -> io::Result<bool> {
        self.line.clear();
        let before = self.bytes;
        loop {
            let available = match self.input.fill_buf() {
                Ok(available) => available,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            let end = available.iter().position(|byte| *byte == b'\n');
            let part = available.get(..end.unwrap_or(available.len())).unwrap_or_default();
            // One byte over the limit, and one for a carriage return, show that the line is too long.
            let room = (MAX_LINE_BYTES + 2).saturating_sub(self.line.len());
            self.line.extend(part.iter().take(room));
            let taken = part.len() + usize::from(end.is_some());
            self.input.consume(taken);
            self.bytes += taken as u64;
            if end.is_some() || taken == 0 {
                break;
            }
        }
        if self.line.last() == Some(&b'\r') {
            self.line.pop();
        }
        Ok(self.bytes > before)
    }
}

impl<R: BufRead> Iterator for RowReader<R> {
    type Item = io::Result<NumberedRow>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            match self.read_line() {
                Err(error) => return Some(Err(error)),
                Ok(false) => return None,
                Ok(true) => self.number += 1,
            }
            let is_header = self.number == 1 && self.line.starts_with(HEADER);
            if !is_header && !self.line.is_empty() {
                return Some(Ok(NumberedRow { line: self.number, row: ImportRow::parse(&self.line) }));
            }
        }
    }
}
