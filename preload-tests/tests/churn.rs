//! Threads that make, move, exchange and free blocks all the time while scans are made: nothing is ever lost (google/sanitizers#757).

use harness::program;

/// Not even suspected, in none of the scans: so many at least, and for so long at least.
fn nothing_is_found(stop: &str, scans: usize, size: usize, seconds: usize) {
    let words = [scans, size, seconds].map(|number| number.to_string());
    let app = program("churn.c").args(&words).deadline(300);
    let outcome = app.options(&format!("interval=0:stop={stop}")).run();
    outcome.expect_clean();
    let report = outcome.report();
    assert!(report.scans.len() > scans, "{report:?}");
    let [file] = &outcome.files()[..] else { panic!("one report: {outcome:?}") };
    let text = std::fs::read_to_string(file).unwrap();
    let found: Vec<_> = text.lines().filter(|line| line.starts_with("leak kind=")).collect();
    assert!(found.is_empty(), "{found:?} {outcome:?}");
}

#[test]
fn eight_threads_that_exchange_their_blocks_for_a_minute() {
    nothing_is_found("ptrace", 1000, 0, 60);
}

#[test]
fn eight_threads_that_exchange_their_blocks_for_a_minute_stopped_by_signals() {
    nothing_is_found("signal", 1000, 0, 60);
}

#[test]
fn eight_threads_that_resize_what_keeps_their_blocks() {
    // In place, by moving, and by remapping.
    for size in [1000, 20_000, 200_000] {
        nothing_is_found("ptrace", 50, size, 0);
        nothing_is_found("signal", 50, size, 0);
    }
}
