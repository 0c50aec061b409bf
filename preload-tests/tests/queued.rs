//! The signal that stops threads, where it has to wait, or may not.

use harness::{Outcome, program};

fn run(what: &str, fate: &str, stop: &str) -> Outcome {
    let outcome =
        program("queued.c").args([what, fate]).options(&format!("interval=0:scan_at_exit=0:stop={stop}")).run();
    assert_eq!(outcome.ok().report().scans.len(), 5, "{outcome:?}");
    outcome
}

#[test]
fn by_ptrace_none_is_sent() {
    assert_eq!(run("blocked", "keep", "ptrace").stdout, "0 waiting\n");
    for (fate, blocks) in [("keep", 0), ("lose", 1)] {
        let outcome = run("none_may_wait", fate, "ptrace");
        outcome.expect_leaks(blocks, blocks * 1337);
        assert!(outcome.report().scans.iter().all(|scan| scan.threads == 2 && scan.unseen.is_empty()), "{outcome:?}");
    }
}

/// A user's signals that wait are limited in number, those of all of his processes together.
#[test]
fn scans_leave_no_more_than_one_waiting() {
    let outcome = run("blocked", "keep", "signal");
    assert!(["0 waiting\n", "1 waiting\n"].contains(&outcome.stdout.as_str()), "{outcome:?}");
}

/// A thread that the signal could not be sent to is there all the same.
#[test]
fn thread_that_is_not_to_be_asked_is_not_gone() {
    for (fate, blocks) in [("keep", 0), ("lose", 1)] {
        let report = run("none_may_wait", fate, "signal").report();
        // (Its registers are not all seen.)
        assert_eq!((report.total(), report.summary.suspected.blocks), ((blocks, blocks * 1337), blocks), "{report:?}");
        assert!(report.scans.iter().all(|scan| scan.threads == 2), "{report:?}");
    }
}
