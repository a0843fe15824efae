//! What must not compile, with the message that the user sees, and what must compile without a warning.
//!
//! After a wanted change of a message: `TRYBUILD=overwrite cargo test -p eventcore --test it ui`, then read the diff.

#[test]
fn ui() {
    let cases = trybuild::TestCases::new();
    cases.compile_fail("tests/ui/command/*.rs");
    cases.compile_fail("tests/ui/event/*.rs");
    cases.compile_fail("tests/ui/projection/*.rs");
    cases.pass("tests/ui/pass/*.rs");
}
