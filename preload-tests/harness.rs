//! Real programs under the real library: what the tests in `tests/` are written with.
//!
//! A test takes a program of `programs/`, runs it under `target/release/libleakscan.so` in a folder of its own, and looks at
//! its output, its status and its reports, which `target/release/leakscan report` has read:
//!
//! ```no_run
//! use harness::program;
//! program("roots.c").arg("bss").options("use_globals=0").run().expect_leaks(1, 1337);
//! ```
//!
//! Program and test talk by lines on stdin and stdout, so that no test waits for a time to pass. Whatever hangs is killed at
//! its deadline, and the test fails with what there is to know. A tool that is missing fails the test too: none is skipped.

mod app;
mod artifacts;
mod huge_pages;
mod outcome;
mod programs;
mod report;
mod running;
mod snapshot;

pub use app::{App, command};
pub use artifacts::{Artifacts, artifacts};
pub use huge_pages::HugePages;
pub use outcome::Outcome;
pub use programs::{program, source, source_path};
pub use report::{Frame, Leak, Misuse, Report, Scan, Summary, Totals, Unseen};
pub use running::Running;
pub use snapshot::Snapshot;

/// Seconds that a program may take, unless its test says otherwise. Far more than any of them needs.
pub const DEADLINE: u64 = 60;

/// Runs a command to its end and gives what it wrote; fails with all of it if the command does.
///
/// # Panics
/// If the command cannot be started or fails.
#[must_use]
pub fn must(command: &mut std::process::Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{command:?}: {}\n{stdout}{stderr}", output.status);
    stdout.into_owned()
}

/// Says what is not compared here, past what the runner keeps to itself of a test that passes.
///
/// # Panics
/// If stderr cannot be written.
pub fn not_tested(what: &str) {
    use std::io::Write;
    std::io::stderr().write_all(format!("NOT TESTED: {what}\n").as_bytes()).unwrap();
}

/// Whether a program is of the version in which its leaks were looked at one by one. Of another one they are not known, and it is said
/// that they are not compared.
///
/// # Panics
/// If the command fails.
#[must_use]
pub fn is_version(command: &[&str], wanted: &str) -> bool {
    let found = must(std::process::Command::new(command[0]).args(&command[1..]));
    let line = found.lines().find(|line| !line.is_empty()).unwrap_or_default();
    let known = found.contains(wanted);
    if !known {
        not_tested(&format!("the leaks of {}, which are known of {wanted}; here is {line}", command[0]));
    }
    known
}

/// Whether the tests run as root: some things only root can arrange, and some only others are refused.
#[must_use]
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}
