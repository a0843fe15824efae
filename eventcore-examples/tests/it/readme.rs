//! The README: its quick start runs, and what it points to exists.

use std::fs;
use std::path::Path;
use std::process::Command;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

fn readme() -> String {
    fs::read_to_string(root().join("README.md")).unwrap()
}

#[test]
fn the_quick_start_is_the_program_word_for_word() {
    let program = include_str!("../../src/bin/quick_start.rs");
    let (_, program) = program.split_once("\n\n").expect("a first line that is not shown");
    assert!(readme().contains(&format!("```rust\n{program}```\n")), "README.md shows another quick start");
}

#[test]
fn the_quick_start_runs_as_often_as_one_likes() {
    let directory = tempfile::tempdir().unwrap();
    for _ in 0..2 {
        let output = Command::new(env!("CARGO_BIN_EXE_quick-start")).current_dir(directory.path()).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        assert_eq!(String::from_utf8(output.stdout).unwrap(), "alice has 30, bob has 70\n");
        let files: Vec<_> = fs::read_dir(directory.path()).unwrap().map(|file| file.unwrap().file_name()).collect();
        assert_eq!(files, ["quick-start.db"], "the store was closed");
    }
}

#[test]
fn there_are_exactly_two_commands_to_get_going_and_they_exist() {
    let readme = readme();
    let (_, block) = readme.split_once("```sh\n").unwrap();
    let (commands, rest) = block.split_once("```").unwrap();
    let lines: Vec<&str> = commands.lines().collect();
    assert_eq!(lines, ["cargo run --release -p eventcore-examples --bin bank", "scripts/test"]);
    assert!(!rest.contains("```sh"));
    assert!(root().join("scripts/test").is_file());
}

#[test]
fn every_link_leads_to_something() {
    let readme = readme();
    let links: Vec<&str> = readme.split("](").skip(1).filter_map(|link| link.split(')').next()).collect();
    assert!(links.len() > 5, "{links:?}");
    for link in links.into_iter().filter(|link| !link.contains("://")) {
        assert!(root().join(link).exists(), "{link} is not there");
    }
}
