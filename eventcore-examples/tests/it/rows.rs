//! The rows of a file: what is read, and what is said about lines that are no rows.

use crate::generated_file::{GeneratedFile, HEADER};
use chrono::NaiveDate;
use eventcore_examples::import::{Direction, ImportRow, MAX_LINE_BYTES, NumberedRow, RowError, RowReader};
use proptest::prelude::*;
use std::io::BufReader;

const GOOD: &str = r#"17;42;930215;"VYDAJ";"PREVOD NA UCET";120.50;-3.20;"SIPO";"ST";"66""#;

fn read(text: &[u8]) -> Vec<NumberedRow> {
    RowReader::new(text).collect::<Result<_, _>>().unwrap()
}

fn field(field: &'static str, text: &str, expected: &'static str) -> RowError {
    RowError::Field { field, text: text.to_owned(), expected }
}

#[test]
fn a_row_is_read_with_all_that_matters() {
    let row = ImportRow::parse(GOOD.as_bytes()).unwrap();
    assert_eq!(row.transaction, 17);
    assert_eq!(row.account.as_ref(), "berka-42");
    assert_eq!(row.direction, Direction::Debit);
    assert_eq!(row.booking.amount.minor_units(), 12_050);
    assert_eq!(row.booking.booked_on, NaiveDate::from_ymd_opt(1993, 2, 15).unwrap());
    assert_eq!(row.booking.text.as_deref(), Some("PREVOD NA UCET / SIPO"));
    assert_eq!(row.printed_balance.minor_units(), -320);
    assert_eq!(row.command_id().unwrap().as_str(), "berka-17");
}

#[test]
fn all_three_types_have_a_direction_and_a_text_may_be_missing() {
    for (kind, direction) in [("PRIJEM", Direction::Credit), ("VYDAJ", Direction::Debit), ("VYBER", Direction::Debit)] {
        let row = ImportRow::parse(format!("1;2;931231;\"{kind}\";\"\";1.00;1.00;\" \";;").as_bytes()).unwrap();
        assert_eq!((row.direction, row.booking.text), (direction, None), "{kind}");
    }
}

#[test]
fn a_quoted_field_may_hold_the_separator() {
    let row = ImportRow::parse(br#"1;2;931231;"PRIJEM";"A;B";1.00;1.00;"say ""hi""";;"#).unwrap();
    assert_eq!(row.booking.text.as_deref(), Some("A;B / say \"hi\""));
}

#[test]
fn every_kind_of_malformed_line_is_told_with_its_number() {
    let number = "a whole number";
    let day = "a day as YYMMDD";
    let amount = "an amount of money such as 700.00, more than nothing";
    let balance = "a balance such as 700.00 or -3.10";
    let cases: &[(&[u8], RowError)] = &[
        (b"x;42;930215;\"VYDAJ\";\"\";1.00;1.00;\"\";;", field("trans_id", "x", number)),
        (b";42;930215;\"VYDAJ\";\"\";1.00;1.00;\"\";;", field("trans_id", "", number)),
        (b"+1;42;930215;\"VYDAJ\";\"\";1.00;1.00;\"\";;", field("trans_id", "+1", number)),
        (
            b"99999999999999999999;42;930215;\"VYDAJ\";\"\";1.00;1.00;\"\";;",
            field("trans_id", "99999999999999999999", number),
        ),
        (b"1;-4;930215;\"VYDAJ\";\"\";1.00;1.00;\"\";;", field("account_id", "-4", number)),
        (b"1;4;930230;\"VYDAJ\";\"\";1.00;1.00;\"\";;", field("date", "930230", day)),
        (b"1;4;931301;\"VYDAJ\";\"\";1.00;1.00;\"\";;", field("date", "931301", day)),
        (b"1;4;93021;\"VYDAJ\";\"\";1.00;1.00;\"\";;", field("date", "93021", day)),
        (b"1;4;1993-02-15;\"VYDAJ\";\"\";1.00;1.00;\"\";;", field("date", "1993-02-15", day)),
        (b"1;4;9302 1;\"VYDAJ\";\"\";1.00;1.00;\"\";;", field("date", "9302 1", day)),
        (b"1;4;930215;\"GIFT\";\"\";1.00;1.00;\"\";;", field("type", "GIFT", "PRIJEM, VYDAJ or VYBER")),
        (b"1;4;930215;\"VYDAJ\";\"\";0.00;1.00;\"\";;", field("amount", "0.00", amount)),
        (b"1;4;930215;\"VYDAJ\";\"\";-1.00;1.00;\"\";;", field("amount", "-1.00", amount)),
        (b"1;4;930215;\"VYDAJ\";\"\";1.005;1.00;\"\";;", field("amount", "1.005", amount)),
        (b"1;4;930215;\"VYDAJ\";\"\";;1.00;\"\";;", field("amount", "", amount)),
        (b"1;4;930215;\"VYDAJ\";\"\";1.00;one;\"\";;", field("balance", "one", balance)),
        (b"1;4;930215;\"VYDAJ\";\"\";1.00;1.00;\"\";", RowError::FieldCount { found: 9 }),
        (b"1;4;930215;\"VYDAJ\";\"\";1.00;1.00;\"\";;;", RowError::FieldCount { found: 11 }),
        (b"1;4;930215;\"VYDAJ\";\"\";1.00;1.00;\"\";;;;;;;;", RowError::FieldCount { found: 16 }),
        (b"hello", RowError::FieldCount { found: 1 }),
        (b"   ", RowError::FieldCount { found: 1 }),
        (b"1;4;930215;\"VYD", RowError::UnclosedQuote { end: "1;4;930215;\"VYD".to_owned() }),
        (b"1;4;930215;\"VYDAJ\";\"\xff\";1.00;1.00;\"\";;", RowError::NotText),
    ];
    let mut file = HEADER.as_bytes().to_vec();
    for (line, _) in cases {
        file.extend_from_slice(line);
        // A good row after each broken line: it has to be read as if nothing had been before it.
        file.extend_from_slice(b"\r\n");
        file.extend_from_slice(GOOD.as_bytes());
        file.extend_from_slice(b"\n");
    }
    let rows = read(&file);
    assert_eq!(rows.len(), 2 * cases.len());
    let good = ImportRow::parse(GOOD.as_bytes());
    for (index, ((line, error), pair)) in cases.iter().zip(rows.chunks(2)).enumerate() {
        let number = 2 + 2 * index as u64;
        let text = String::from_utf8_lossy(line);
        assert_eq!(pair[0], NumberedRow { line: number, row: Err(error.clone()) }, "{text}");
        assert_eq!(pair[1], NumberedRow { line: number + 1, row: good.clone() }, "after {text}");
    }
}

#[test]
fn a_line_of_any_length_takes_bounded_memory_and_costs_only_itself() {
    for (length, expected) in
        [(MAX_LINE_BYTES, true), (MAX_LINE_BYTES + 1, false), (MAX_LINE_BYTES + 2, false), (99_999, false)]
    {
        let [start, end] = ["1;4;930215;\"VYDAJ\";\"", "\";1.00;1.00;\"\";;"];
        let line = format!("{start}{}{end}", "a".repeat(length - start.len() - end.len()));
        for line_end in ["\n", "\r\n"] {
            let file = format!("{line}{line_end}{GOOD}");
            // A small buffer, so that the line is read in pieces.
            let reader = RowReader::new(BufReader::with_capacity(16, file.as_bytes()));
            let rows: Vec<_> = reader.collect::<Result<_, _>>().unwrap();
            match &rows[0].row {
                Ok(_) => assert!(expected, "{length} bytes"),
                Err(error) => assert_eq!((error, expected), (&RowError::TooLong { limit: MAX_LINE_BYTES }, false)),
            }
            assert_eq!((rows[1].line, rows[1].row.is_ok()), (2, true));
        }
    }
}

#[test]
fn blank_lines_are_counted_but_are_no_rows() {
    let rows = read(format!("\r\n{GOOD}\n\n\n{GOOD}").as_bytes());
    assert_eq!(rows.iter().map(|row| row.line).collect::<Vec<_>>(), [2, 5]);
    assert!(rows.iter().all(|row| row.row.is_ok()));
    assert_eq!(read(b""), []);
}

#[test]
fn a_header_is_passed_over_only_in_the_first_line() {
    let rows = read(format!("{HEADER}{GOOD}\r\n{HEADER}").as_bytes());
    assert_eq!(rows.len(), 2);
    assert_eq!((rows[0].line, rows[0].row.is_ok()), (2, true));
    assert_eq!((rows[1].line, rows[1].row.is_ok()), (3, false));
}

#[test]
fn a_generated_file_is_read_without_complaint() {
    let file = GeneratedFile::new(500, 20);
    let text = file.text();
    let mut reader = RowReader::new(text.as_bytes());
    assert_eq!(reader.by_ref().filter(|row| row.as_ref().unwrap().row.is_ok()).count(), 500);
    assert_eq!(reader.bytes_read(), text.len() as u64);
}

proptest! {
    #[test]
    fn no_bytes_make_the_parser_panic_or_lose_the_row_after_them(junk in prop::collection::vec(any::<u8>(), 0..200)) {
        let mut file = junk.clone();
        file.push(b'\n');
        file.extend_from_slice(GOOD.as_bytes());
        let rows = read(&file);
        let last = rows.last().unwrap();
        prop_assert_eq!(last.line, 2 + junk.iter().filter(|byte| **byte == b'\n').count() as u64);
        prop_assert!(last.row.is_ok());
    }

    #[test]
    fn a_row_cut_off_anywhere_is_refused(end in 0..GOOD.len()) {
        // The last fields are text that may be short; before them no part of the row makes a row.
        let cut = &GOOD[..end.min(GOOD.len() - 7)];
        prop_assert!(ImportRow::parse(cut.as_bytes()).is_err(), "{cut}");
    }
}
