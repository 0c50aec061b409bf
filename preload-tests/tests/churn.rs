//! Threads that make, move, exchange and free blocks all the time while scans are made: nothing is ever lost (google/sanitizers#757).

use harness::program;

/// Not even suspected, in none of the scans.
fn nothing_is_found(scans: usize, size: usize) {
    for stop in ["ptrace", "signal"] {
        let app = program("churn.c").arg(scans.to_string()).arg(size.to_string()).deadline(300);
        let outcome = app.options(&format!("interval=0:stop={stop}")).run();
        outcome.expect_clean();
        let report = outcome.report();
        assert_eq!(report.scans.len(), scans + 1, "{report:?}");
        let [file] = &outcome.files()[..] else { panic!("one report: {outcome:?}") };
        let text = std::fs::read_to_string(file).unwrap();
        let found: Vec<_> = text.lines().filter(|line| line.starts_with("leak kind=")).collect();
        assert!(found.is_empty(), "{found:?} {outcome:?}");
    }
}

#[test]
fn eight_threads_that_exchange_their_blocks() {
    nothing_is_found(1000, 0);
}

#[test]
fn eight_threads_that_resize_what_keeps_their_blocks() {
    // In place, by moving, and by remapping.
    for size in [1000, 20_000, 200_000] {
        nothing_is_found(50, size);
    }
}
