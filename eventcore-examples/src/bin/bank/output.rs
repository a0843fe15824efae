//! What the program says, and where.

use eventcore_examples::chain;
use std::error::Error as StdError;
use std::io::{self, Write};

/// Anything that ends the program.
pub(crate) type Failure = Box<dyn StdError + Send + Sync>;

/// Prints an error with everything that caused it on standard error.
pub(crate) fn complain(error: &(dyn StdError + 'static)) {
    note(&format!("bank: {}", chain(error)));
}

/// Prints a line on standard error. If even that is gone, there is nobody left to tell.
pub(crate) fn note(line: &str) {
    let _ = writeln!(io::stderr().lock(), "{line}");
}

/// Prints a line on standard output.
pub(crate) fn say(line: &str) -> Result<(), Failure> {
    Ok(writeln!(io::stdout().lock(), "{line}")?)
}

/// Whether the reader of standard output has gone away.
pub(crate) fn is_broken_pipe(error: &(dyn StdError + 'static)) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}
