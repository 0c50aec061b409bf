//! Programs of many threads: all are stopped, none is disturbed, whichever way.

use harness::{App, Outcome, program};

fn app(what: &str, number: u32, options: &str) -> App {
    program("threads.c").arg(what).arg(number.to_string()).options(options)
}

/// Each thread keeps two blocks and loses one; all were stopped.
fn all_seen(what: &str, number: u32, stop: &str) -> Outcome {
    let outcome = app(what, number, &format!("stop={stop}")).run();
    let lost = (number.into(), 1337 * u64::from(number));
    if what == "blocking" && stop == "signal" {
        // Of their registers only those of the call that each waits in were seen.
        outcome.expect_suspected(lost.0, lost.1);
    } else {
        outcome.expect_leaks(lost.0, lost.1);
    }
    let report = outcome.report();
    assert_eq!(report.last().threads, u64::from(number) + 1, "{report:?}");
    let via = if stop == "auto" { "ptrace" } else { stop };
    assert_eq!(report.last().via, via, "{report:?}");
    outcome
}

#[test]
fn a_hundred_waiting_threads() {
    for stop in ["auto", "ptrace", "signal"] {
        let outcome = all_seen("waiting", 100, stop);
        assert_eq!(outcome.report().last().unseen.len(), 0, "{outcome:?}");
    }
}

#[test]
fn running_threads() {
    for stop in ["ptrace", "signal"] {
        let outcome = all_seen("running", 10, stop);
        assert_eq!(outcome.report().last().unseen.len(), 0, "{outcome:?}");
    }
}

#[test]
fn threads_that_block_every_signal() {
    for stop in ["ptrace", "signal"] {
        let _ = all_seen("blocking", 20, stop);
    }
    let _ = all_seen("blocking_and_running", 3, "ptrace");
}

#[test]
fn a_running_thread_that_no_signal_reaches_is_named() {
    let outcome = app("blocking_and_running", 1, "stop=signal").run();
    let report = outcome.ok().report();
    assert!(report.last().unseen.iter().any(|unseen| unseen.what == "thread"), "{report:?}");
    // Its stack is taken whole: nothing that it keeps is reported.
    assert_eq!(report.total_through("keep"), (0, 0), "{report:?}");
}

#[test]
fn short_threads_leave_nothing_behind() {
    // Eight at a time, each with a state of 33 KiB. With one arena, so that the live map is of one size.
    let run = |number| app("short", number, "").env("MALLOC_ARENA_MAX", "1").run();
    let (few, many) = (run(50), run(400));
    few.expect_clean();
    many.expect_clean();
    let grown = many.stat("own_bytes").saturating_sub(few.stat("own_bytes"));
    assert!(grown < 4 << 20, "2,800 short threads more take {grown} bytes more");
}

#[test]
fn pointers_in_flight_from_thread_to_thread_are_not_lost() {
    for stop in ["ptrace", "signal"] {
        let outcome = app("pass", 40, &format!("stop={stop}:scan_at_exit=0")).run();
        let report = outcome.ok().report();
        assert_eq!(report.scans.len(), 40, "{report:?}");
        assert_eq!((report.summary.confirmed_freed, report.summary.suspected_freed), (0, 0), "{report:?}");
        outcome.expect_none_freed();
    }
}

#[test]
fn threads_that_come_and_go_during_scans() {
    for stop in ["ptrace", "signal"] {
        let outcome = app("churn", 40, &format!("stop={stop}")).run();
        outcome.expect_clean();
        assert_eq!(outcome.report().scans.len(), 41);
        outcome.expect_none_freed();
    }
}

#[test]
fn what_a_thread_has_returned_is_kept_until_it_is_joined() {
    let outcome = app("results", 20, "scan_at_exit=0").run();
    outcome.expect_clean();
    outcome.expect_none_freed();
}

#[test]
fn handlers_that_allocate_during_scans() {
    for stop in ["ptrace", "signal"] {
        let outcome = app("handle", 40, &format!("stop={stop}")).run();
        outcome.expect_clean();
        outcome.expect_none_freed();
    }
}

#[test]
fn threads_that_ask_for_their_attributes() {
    // glibc holds a lock of the thread's there, and calls realloc.
    app("attributes", 8, "").run().expect_clean();
}

#[test]
fn threads_that_are_cancelled_or_leave() {
    app("cancel", 50, "").run_as_bare().expect_clean();
}

/// The stack of a joined thread that the program has given is the program's again, and so is what its thread-local storage had.
#[test]
fn stack_that_the_program_has_back() {
    for (what, blocks) in [("table", 1), ("block", 64)] {
        let run = |fate: &str| program("given_back.c").args([what, fate]).options("interval=0:scan_at_exit=0").run();
        run("keep").expect_clean();
        run("lose").expect_leaks(blocks, blocks * 1337);
    }
}

/// The first thread has called pthread_exit: it takes signals, and never answers.
#[test]
fn first_thread_that_is_gone_is_not_waited_for() {
    let outcome = program("endings.c").arg("last_threads_scan").options("stop=signal:scan_at_exit=0").run();
    let report = outcome.report();
    assert_eq!((report.triggers(), report.total()), (vec!["api"], (1, 1337)), "{outcome:?} {report:?}");
    assert!(report.last().unseen.is_empty(), "{report:?}");
}

/// A thread that waits for its child of vfork cannot be stopped: what it keeps in a register may look lost, but is not confirmed.
#[test]
#[cfg(target_arch = "x86_64")]
fn thread_that_waits_in_vfork() {
    let outcome = program("in_vfork.c").options("interval=0:scan_at_exit=0").run();
    let report = outcome.report();
    assert_eq!((report.triggers(), report.total()), (vec!["api", "api"], (1, 1337)), "{outcome:?} {report:?}");
    assert_eq!(report.leaks[0].status, "suspected");
    let why = report.last().unseen.iter().find(|unseen| unseen.what == "thread").expect("it is named");
    assert!(why.why.contains("nothing is confirmed"), "{report:?}");
}

/// It is libc's own now, and is found; nobody is missing.
#[test]
fn a_stack_of_an_ended_thread_that_libc_gives_to_one_of_its_own() {
    for (fate, blocks) in [("lose", 1), ("keep", 0)] {
        let outcome = program("taken_stack.c").arg(fate).options("stop=ptrace:scan_at_exit=0").run();
        outcome.expect_leaks(blocks, 1337 * blocks);
        let report = outcome.report();
        assert!(report.scans.iter().all(|scan| scan.threads == 3 && scan.unseen.is_empty()), "{report:?}");
    }
}

/// Parked by the signal they were all on it, each frame over the one before.
#[test]
fn threads_with_one_alternate_signal_stack() {
    for stop in ["ptrace", "signal"] {
        for (words, lost) in [(&[][..], (0, 0)), (&["lose"], (1, 1337))] {
            let outcome = program("shared_alternate.c").args(words).options(&format!("stop={stop}:interval=0")).run();
            let report = outcome.ok().report();
            assert_eq!((report.scans.len(), report.total()), (21, lost), "{stop}: {report:?}");
            assert!(report.scans[..20].iter().all(|scan| scan.via == stop && scan.unseen.is_empty()), "{report:?}");
        }
    }
}

#[test]
fn threads_with_alternate_signal_stacks_of_their_own() {
    program("own_alternates.c").run().expect_clean();
}
