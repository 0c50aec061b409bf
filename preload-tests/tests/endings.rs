//! The last scan: made once, whichever way the program ends by itself; and what stays when it is ended.

use harness::{Outcome, program};
use std::os::unix::process::ExitStatusExt;

fn end(by: &str, options: &str) -> Outcome {
    program("endings.c").arg(by).options(options).run_as_bare()
}

fn scanned_once_at_the_end(by: &str) {
    let outcome = end(by, "");
    let report = outcome.report();
    assert_eq!(report.triggers(), ["exit"], "{by}: {outcome:?}");
    assert_eq!(report.total(), (1, 1337), "{by}: {report:?}");
    assert_eq!(report.leaks[0].status, "confirmed");
    let outcome = end(by, "scan_at_exit=0");
    assert_eq!(outcome.files().len(), 0, "{by}: {outcome:?}");
}

#[test]
fn return_from_main_and_exit() {
    scanned_once_at_the_end("return");
    scanned_once_at_the_end("exit");
    scanned_once_at_the_end("exit_in_exit");
}

#[test]
fn underscore_exit() {
    scanned_once_at_the_end("_exit");
    scanned_once_at_the_end("_Exit");
    scanned_once_at_the_end("handler");
}

#[test]
fn quick_exit() {
    scanned_once_at_the_end("quick_exit");
}

#[test]
fn abort_and_what_comes_to_it() {
    scanned_once_at_the_end("abort");
    let outcome = program("uncaught.cc").run_as_bare();
    let report = outcome.report();
    assert_eq!((report.triggers(), report.total_through("lose")), (vec!["exit"], (1, 1337)), "{outcome:?}");
}

/// A handler of SIGABRT has jumped out of it: the program goes on, and so do scans.
#[test]
fn abort_that_was_not_the_end() {
    let outcome = end("abort_and_back", "");
    let report = outcome.report();
    assert_eq!((report.triggers(), report.total()), (vec!["exit", "exit"], (1, 1337)), "{outcome:?}");
}

#[test]
fn end_by_a_thread() {
    scanned_once_at_the_end("thread");
    scanned_once_at_the_end("last_thread");
}

#[test]
fn exit_scan_comes_behind_earlier_ones() {
    let outcome = program("endings.c").args(["exit", "scan first"]).run();
    let report = outcome.report();
    assert_eq!(report.triggers(), ["api", "exit"]);
    assert_eq!(report.total(), (1, 1337));
}

/// An end that nobody is told of: scans made before stand in the report, whole.
#[test]
fn earlier_scans_outlast_a_sudden_end() {
    for (by, options) in
        [("past_libc", ""), ("kill_past_libc", ""), ("segv", "fatal=0"), ("fault", "fatal=0"), ("term", "fatal=0")]
    {
        let outcome = end(by, options);
        assert_eq!(outcome.files().len(), 0, "{by}: {outcome:?}");
        let app = program("endings.c").args([by, "scan first"]).options(options);
        let outcome = app.run_as_bare();
        let report = outcome.report();
        assert_eq!((report.triggers(), report.total()), (vec!["api"], (0, 0)), "{by}: {report:?}");
        assert!(report.summary.damaged.is_empty(), "{report:?}");
    }
}

/// A signal that ends the program is told first; the program ends as it would, and sees no handler of ours.
#[test]
fn a_signal_ends_it_after_a_scan() {
    for by in ["segv", "fault", "term", "assert", "trap", "alarm", "pipe", "chained", "default_again", "system_v"] {
        scanned_once_at_the_end(by);
    }
    for by in ["timer", "real_time", "last_real_time"] {
        scanned_once_at_the_end(by);
    }
    // Our handler, called by the program.
    let outcome = program("endings.c").arg("called").run();
    assert_eq!((outcome.status.signal(), outcome.report().triggers()), (Some(15), vec!["exit"]), "{outcome:?}");
    // A thread's fault, with what another thread keeps.
    let report = end("thread_fault", "").report();
    assert_eq!((report.triggers(), report.total()), (vec!["exit"], (1, 1337)), "{report:?}");
    // What the program handles or ignores itself is its own.
    scanned_once_at_the_end("ignored");
}

/// The program's own SIGKILL, and the system call that ends it, where libc makes it.
#[test]
fn ends_that_cannot_be_caught() {
    for by in ["raise_kill", "kill", "exit_group"] {
        scanned_once_at_the_end(by);
    }
}

#[test]
fn exec_in_every_form_is_an_end() {
    for form in ["execve", "syscall", "execv", "execvp", "execvpe", "execl", "execle", "execlp", "fexecve"] {
        let run = |fate: &str, options: &str| program("execs.c").args([form, fate]).options(options).run_as_bare();
        let outcome = run("lose", "");
        assert_eq!(outcome.stdout, "1 2 3 4 5 6 7 8 9\n", "{form}");
        let reports = outcome.reports();
        let ours: Vec<_> = reports.iter().filter(|report| report.exe.ends_with("/execs")).collect();
        assert_eq!(
            (ours.len(), ours[0].triggers(), ours[0].total()),
            (1, vec!["exec"], (1, 1337)),
            "{form}: {reports:?}"
        );
        assert_eq!(
            (ours[0].leaks[0].status.as_str(), ours[0].leaks[0].functions()[0]),
            ("confirmed", "lose"),
            "{form}"
        );
        // A program without a leak leaves nothing, and asked for no scan at its end there is none.
        for (fate, options) in [("keep", ""), ("lose", "scan_at_exit=0")] {
            let reports = run(fate, options).reports();
            assert!(
                reports.iter().all(|report| !report.exe.ends_with("/execs")),
                "{form} {fate} {options}: {reports:?}"
            );
        }
    }
}

/// What cannot be started is no end.
#[test]
fn exec_that_fails() {
    for (what, triggers) in [("nothing", vec!["exit"]), ("no_program", vec!["exec", "exit"])] {
        let outcome = program("execs.c").args([what, "lose"]).run_as_bare();
        let report = outcome.report();
        assert_eq!((report.triggers(), report.total()), (triggers, (1, 1337)), "{outcome:?}");
        assert_eq!(outcome.status.code(), Some(5));
    }
}

/// What the scan before each has mapped is given back, from a glance that finds nothing, too; and where the kernel takes nothing back.
#[test]
fn exec_that_fails_often_takes_no_memory() {
    // To lock so much memory takes root's rights.
    let forms = if harness::is_root() { &["no_programs", "locked_no_programs"][..] } else { &["no_programs"] };
    for (form, (fate, leaks)) in forms.iter().flat_map(|form| [(form, ("keep", (0, 0))), (form, ("lose", (1, 1337)))]) {
        let outcome = program("execs.c").args([*form, fate]).run();
        assert_eq!((outcome.status.code(), outcome.report().total()), (Some(5), leaks), "{form}: {outcome:?}");
    }
}

/// Children that are forked to become another program are not scanned.
#[test]
fn exec_of_a_child() {
    for way in ["forked", "vforked"] {
        let outcome = program("execs.c").args([way, "lose"]).run_as_bare();
        let reports = outcome.reports();
        let ours = reports.iter().filter(|report| report.exe.ends_with("/execs")).map(harness::Report::triggers);
        assert_eq!(ours.collect::<Vec<_>>(), [["exit"]], "{way}: {reports:?}");
    }
}

#[test]
fn exec_begins_a_report_of_its_own() {
    let outcome = program("endings.c").args(["exec", "scan first"]).run();
    assert_eq!(outcome.status.code(), Some(5), "{outcome:?}");
    let files = outcome.files();
    assert_eq!(files.len(), 2, "{outcome:?} {files:?}");
    let reports = outcome.reports();
    assert!(reports[1].exe.ends_with("/endings") && reports[1].triggers() == ["api", "exec"], "{reports:?}");
    assert!(!reports[0].exe.ends_with("/endings") && reports[0].triggers() == ["exit"], "{reports:?}");
    assert_eq!(reports[0].pid, reports[1].pid);
}

/// Rust's threads have 8 KiB, of which the kernel takes 3.4 for its own frame: a scan there ended the program by SIGSEGV.
#[test]
fn scans_and_allocations_on_a_small_stack_for_signals() {
    const SIGTERM: i32 = 15;
    for threads in ["0", "3"] {
        for stop in ["ptrace", "signal"] {
            let program = |what: &str| program("small_stacks.c").args([what, threads]).options(&format!("stop={stop}"));
            let outcome = program("end").run_as_bare();
            assert_eq!(outcome.status.signal(), Some(SIGTERM), "{outcome:?}");
            assert_eq!(outcome.report().total_through("lose"), (1, 1337), "{outcome:?}");
            let outcome = program("scan").run();
            outcome.ok();
            let report = outcome.report();
            assert_eq!((report.triggers(), report.total()), (vec!["api", "exit"], (1, 1337)), "{outcome:?}");
            program("malloc").run_as_bare().expect_leaks(1, 1337);
        }
    }
}
