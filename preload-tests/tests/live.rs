//! The places of roots.c while the program runs: another thread is stopped, a copy is made, and what is looked at is the copy.

use harness::{Outcome, Report, program, source};

fn run(place: &str, options: &str) -> Outcome {
    let app = program("roots.c").arg(place).arg(source("roots_library.c")).args(["2", "beside"]);
    app.options(&format!("interval=0:scan_at_exit=0:{options}")).run()
}

/// Two scans, for both of which so many threads were stopped in this way.
fn live(outcome: &Outcome, stop: &str, threads: u64) -> [Report; 2] {
    let report = outcome.ok().report();
    assert_eq!(report.triggers(), ["api", "api"], "{outcome:?} {report:?}");
    let stopped = report.scans.iter().all(|scan| scan.via == stop && scan.threads == threads);
    assert!(stopped, "{stop}: {report:?}");
    [1, 2].map(|scan| outcome.report_of_scan(scan))
}

/// The block is kept by that class of roots and by no other, in both scans, whichever way threads are stopped. The program has
/// so many threads.
fn kept_by(class: &str, threads: u64, places: &[&str]) {
    for place in places {
        for stop in ["ptrace", "signal"] {
            for report in live(&run(place, &format!("stop={stop}:{class}=1")), stop, threads) {
                assert_eq!(report.total(), (0, 0), "{place}, {stop}: {report:?}");
            }
            let lost = live(&run(place, &format!("stop={stop}:{class}=0")), stop, threads);
            // Of a thread that blocks the signal not all registers are seen.
            let all_seen = stop == "ptrace" || *place != "stack_of_blocking_thread";
            for (report, status) in lost.iter().zip(["suspected", if all_seen { "confirmed" } else { "suspected" }]) {
                assert_eq!(report.total_through("make"), (1, 1337), "{place}, {stop}: {report:?}");
                assert!(report.through("make").all(|leak| leak.status == status), "{place}, {stop}: {report:?}");
            }
        }
    }
}

/// The block is a leak, and the only one.
fn never_kept(threads: u64, places: &[&str]) {
    for place in places {
        for stop in ["ptrace", "signal"] {
            for report in live(&run(place, &format!("stop={stop}")), stop, threads) {
                assert_eq!(report.total(), (1, 1337), "{place}, {stop}: {report:?}");
            }
        }
    }
}

#[test]
fn globals() {
    kept_by("use_globals", 2, &["data", "bss", "relro", "library_data", "library_bss"]);
    kept_by("use_globals", 2, &["to_the_middle", "to_the_end", "with_tag", "mangled", "with_high_tag", "in_packed"]);
}

#[test]
fn stacks() {
    kept_by("use_stacks", 2, &["stack"]);
    kept_by("use_stacks", 3, &["thread_stack", "stack_of_blocking_thread", "red_zone", "below_alternate_stack"]);
    never_kept(2, &["popped_frame", "stack_of_ended_thread"]);
    never_kept(3, &["popped_frame_of_thread", "dropped_argument"]);
}

#[test]
fn registers() {
    kept_by("use_registers", 3, &["register", "vector_register", "argument"]);
}

#[test]
fn thread_local_storage() {
    kept_by("use_tls", 2, &["tls", "specific", "late_specific"]);
    kept_by("use_tls", 3, &["tls_of_thread", "specific_of_thread", "library_tls_of_thread"]);
    never_kept(2, &["tls_of_ended_thread", "library_tls_of_ended_thread"]);
}

#[test]
fn private_mappings() {
    kept_by(
        "use_mappings",
        2,
        &["anonymous", "read_only", "closed_page", "private_file", "private_file_made_read_only"],
    );
    kept_by(
        "use_mappings",
        2,
        &["guarded", "guarded_large", "page_behind_key", "code", "sbrk", "brk", "coroutine_on_mapping"],
    );
    kept_by("use_mappings", 2, &["page_not_forked", "page_wiped_on_fork"]);
}

#[test]
fn shared_mappings() {
    kept_by("use_mappings", 2, &["shared_file", "memfd", "shared_anonymous", "shm"]);
}

#[test]
fn what_the_kernel_keeps() {
    kept_by("use_kernel", 2, &["epoll", "timer"]);
    kept_by("use_kernel", 2, &["pipe", "pipe_behind_odd_bytes", "named_pipe", "socket", "datagram", "packet"]);
    never_kept(2, &["read_from_pipe", "taken_signal"]);
}

/// Its value is asked for by ptrace alone, for 50 ms: a machine that is busy may let that pass, and then the report says so.
#[test]
fn value_of_a_signal_that_waits() {
    for (place, threads) in [("waiting_signal", 2), ("waiting_signal_of_thread", 3)] {
        for (options, lost) in [("stop=ptrace", (0, 0)), ("stop=ptrace:use_kernel=0", (1, 1337))] {
            for (at, report) in live(&run(place, options), "ptrace", threads).iter().enumerate() {
                let is_late = report.scans[at].unseen.iter().any(|unseen| unseen.what == "pending-signal");
                let lost = if is_late { (1, 1337) } else { lost };
                assert_eq!(report.total_through("make"), lost, "{place}, {options}: {report:?}");
            }
        }
    }
}

#[test]
fn blocks() {
    never_kept(2, &["freed_block", "in_slack"]);
    kept_by("use_globals", 2, &["block", "in_slack_that_is_asked_for"]);
}
