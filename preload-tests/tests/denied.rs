//! Where the system refuses what a scan needs: another way is taken, or the report says what is missing; nothing hangs, and
//! the program goes on.

use harness::{App, Outcome, Report, is_root, program};

fn app(what: &str) -> App {
    program("denied.c").arg(what)
}

/// All scans were made, with every thread stopped by the signal.
fn by_signal(report: &Report) {
    assert_eq!((report.scans.len(), report.total()), (7, (1, 1337)), "{report:?}");
    assert!(report.scans.iter().all(|scan| scan.via == "signal" && scan.threads == 2), "{report:?}");
    assert!(report.scans.iter().all(|scan| scan.unseen.is_empty()), "{report:?}");
}

#[test]
fn ptrace_is_the_way_where_it_is_allowed() {
    let report = app("allowed").run().report();
    assert!(report.scans.iter().all(|scan| scan.via == "ptrace" && scan.threads == 2), "{report:?}");
    assert_eq!((report.scans.len(), report.total()), (7, (1, 1337)), "{report:?}");
    let report = app("alone").run().report();
    assert!(report.scans.iter().all(|scan| scan.via == "alone" && scan.threads == 1), "{report:?}");
}

#[test]
fn a_filter_that_refuses_ptrace() {
    let outcome = app("ptrace_refused").run();
    outcome.expect_leaks(1, 1337);
    by_signal(&outcome.report());
    assert_eq!(outcome.stderr, "");
}

#[test]
fn a_filter_that_kills_whoever_calls_ptrace() {
    let outcome = app("ptrace_kills").run();
    outcome.expect_leaks(1, 1337);
    by_signal(&outcome.report());
}

#[test]
fn a_program_under_a_debugger() {
    let outcome = app("tracer").deadline(20).run();
    outcome.ok();
    let (child, status) = outcome.stdout.trim().split_once(' ').unwrap();
    assert_eq!(status, "0");
    by_signal(&outcome.report_of(child.parse().unwrap()));
}

fn open_to_all(app: &App) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(app.folder(), std::fs::Permissions::from_mode(0o777)).unwrap();
}

#[test]
fn a_program_that_is_not_dumpable() {
    let app = app("not_dumpable");
    if !is_root() {
        return app.run().expect_leaks(1, 1337);
    }
    open_to_all(&app);
    app.as_nobody().run().expect_leaks(1, 1337);
}

/// Root that acts as another user, and may be dumped all the same, as some servers: its timers are kept from its own copy.
#[test]
fn a_program_that_is_two_users_at_once() {
    if !is_root() {
        return app("not_dumpable").run().expect_leaks(1, 1337);
    }
    let app = app("two_users");
    open_to_all(&app);
    let outcome = app.run();
    outcome.expect_leaks(1, 1337);
    let report = outcome.report();
    let live: Vec<_> = report.scans.iter().map(|scan| (scan.trigger.as_str(), scan.unseen.len())).collect();
    assert!(live.len() > 2 && live.iter().all(|(_, unseen)| *unseen == 0), "{report:?}");
    assert_eq!(outcome.report_of_scan(2).leaks[0].status, "confirmed");
}

/// The program has gone on; there is no scan, and that was said once.
fn told(outcome: &Outcome) {
    outcome.ok();
    assert_eq!(outcome.files().len(), 0, "{outcome:?}");
    let lines = outcome.stderr.lines().filter(|line| line.starts_with("leakscan: ")).count();
    assert_eq!((lines, outcome.stderr.lines().count()), (1, 1), "{outcome:?}");
}

#[test]
fn a_filter_that_refuses_clone() {
    told(&app("clone_refused").run());
    assert_eq!(app("clone_refused").options("quiet=1").run().ok().stderr, "");
}

#[test]
fn no_further_process_is_allowed() {
    let app = app("no_processes");
    if !is_root() {
        return told(&app.run());
    }
    // Root has no such limit.
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(app.folder(), std::fs::Permissions::from_mode(0o777)).unwrap();
    told(&app.as_nobody().run());
}

#[test]
fn every_descriptor_is_in_use() {
    let outcome = app("no_descriptors").run();
    let report = outcome.ok().report();
    // Either the thread was seen, or the report says that it was not.
    assert_eq!(report.total_through("lose"), (1, 1337), "{report:?}");
    let kept = report.total_through("keep") == (0, 0);
    assert!(kept, "a block on the stack of a thread that was not looked for: {report:?}");
}

/// Some are left, but not as many as a scan needs.
#[test]
fn few_descriptors_are_left() {
    for left in 0..=5 {
        let outcome = app("few_descriptors").arg(left.to_string()).run();
        outcome.expect_leaks(1, 1337);
        let report = outcome.report();
        assert_eq!((report.scans.len(), outcome.stderr.as_str()), (7, ""), "{left} left: {report:?}");
        assert_eq!(outcome.stats("confirmed_blocks"), [0, 1, 1, 1, 1, 1, 1], "{left} left: {report:?}");
    }
}

#[test]
fn no_memory_is_left() {
    let outcome = app("little_memory").run();
    told(&outcome);
    assert!(outcome.stderr.contains("RLIMIT_AS"), "{outcome:?}");
    assert_eq!(app("little_memory").options("quiet=1").run().ok().stderr, "");
}

/// The child may have as much as the hard limit says.
#[test]
fn no_memory_is_left_to_the_program_alone() {
    let outcome = app("little_memory_from_now").run();
    outcome.expect_leaks(1, 1337);
    assert_eq!((outcome.report().scans.len(), outcome.stderr.as_str()), (8, ""), "{outcome:?}");
}

#[test]
fn there_is_no_proc() {
    if !is_root() {
        // Only root may change the root.
        return told(&app("clone_refused").run());
    }
    let app = app("no_proc");
    let empty = app.path("empty");
    std::fs::create_dir(&empty).unwrap();
    let outcome = app.arg(&empty).run();
    // The scan before, which says so; and the first one that cannot be made.
    let report = outcome.ok().report();
    assert_eq!((report.triggers(), report.total()), (vec!["chroot"], (1, 1337)), "{report:?}");
    assert_eq!(outcome.stderr.lines().filter(|line| line.starts_with("leakscan: ")).count(), 1, "{outcome:?}");
}

/// What is lost until then is told before, and what comes later where that is possible.
#[test]
fn another_root_directory() {
    if !is_root() {
        return told(&app("clone_refused").run());
    }
    let app = program("jail.c").options("quiet=1");
    let outcome = app.clone().args(["/tmp", "lose", "child"]).run_as_bare();
    assert_eq!((outcome.files().len(), outcome.report().triggers()), (1, vec!["exit"]), "{outcome:?}");
    for past_libc in [&[][..], &["syscall"], &["vfork"]] {
        for (fate, lost) in [("lose", (1, 1337)), ("keep", (0, 0))] {
            let app = program("jail.c").options("quiet=1");
            let empty = app.path("jail");
            std::fs::create_dir(&empty).unwrap();
            let outcome = app.clone().arg(&empty).arg(fate).args(past_libc.iter().copied()).run_as_bare();
            let report = outcome.report();
            assert_eq!((report.triggers(), report.total()), (vec!["chroot"], lost), "{fate}: {report:?}");
            assert!(report.leaks.iter().all(|leak| leak.status == "suspected"), "{report:?}");
            let [unseen] = &report.last().unseen[..] else { panic!("{report:?}") };
            assert_eq!((unseen.what.as_str(), unseen.count), ("chroot", 1));
            // The same directory under another name: nothing is missing there.
            let report = app.arg("/./").arg(fate).run_as_bare().report();
            assert_eq!((report.triggers(), report.total()), (vec!["chroot", "exit"], lost), "{fate}: {report:?}");
            assert!(report.leaks.iter().all(|leak| leak.status == "confirmed") && report.last().unseen.is_empty());
        }
    }
}

/// A filter that would end the program for a scan: the last one comes before it, and the program goes on as without us.
#[test]
fn a_filter_that_kills_for_what_a_scan_needs() {
    for (way, what) in [
        ("prctl", "all"),
        ("seccomp", "all"),
        ("syscall_prctl", "all"),
        ("prctl", "trap"),
        ("prctl", "clone"),
        ("prctl", "no_wait"),
        ("prctl", "ptracer"),
        ("prctl", "still"),
        ("listener", "asks"),
    ] {
        for (fate, lost) in [("lose", (1, 1337)), ("keep", (0, 0))] {
            for options in ["", "stop=signal:interval=1", "allocator=bundled"] {
                let outcome = program("sandbox.c").args([way, what, fate]).options(options).run_as_bare();
                assert_eq!(outcome.status.code(), Some(3), "{way} {what}: {outcome:?}");
                let report = outcome.report();
                assert_eq!(report.total(), lost, "{way} {what}: {report:?}");
                let last = report.last();
                let told = last.unseen.iter().any(|unseen| unseen.what == "seccomp" && unseen.count == 1);
                assert!(last.trigger == "seccomp" && told, "{way} {what}: {report:?}");
                // The program goes on.
                assert!(report.leaks.iter().all(|leak| leak.status == "suspected"), "{way} {what}: {report:?}");
            }
        }
    }
}

#[test]
fn a_sandbox_of_read_and_write_alone() {
    for options in ["", "allocator=bundled"] {
        let outcome = program("sandbox.c").args(["strict", "", "lose"]).options(options).run_as_bare();
        assert_eq!(outcome.ok().report().total(), (1, 1337), "{outcome:?}");
    }
}

/// A thread that is at a scan comes to the end of it, and to no other.
#[test]
fn a_filter_for_all_threads_while_one_scans() {
    for options in ["", "stop=signal"] {
        let mut running = program("sandbox.c").args(["all_threads", "all", "lose"]).options(options).start();
        assert_eq!(running.line(), "scanned");
        running.say("");
        let outcome = running.finish();
        assert_eq!(outcome.status.code(), Some(3), "{outcome:?}");
        let report = outcome.report();
        // Of the program's own scans there may be another one behind it.
        assert!(report.triggers().contains(&"seccomp") && report.total() == (1, 1337), "{report:?}");
    }
}

/// A filter that was there when the program began, as service managers have them: against who looks into other processes.
#[test]
fn a_filter_of_a_service() {
    for (fate, lost) in [("lose", (2, 1337 + 999)), ("keep", (1, 999))] {
        for options in ["", "interval=1:stop=signal"] {
            let outcome = program("sandbox.c").args(["prctl", "service", fate]).options(options).run_as_bare();
            assert_eq!(outcome.status.code(), Some(3), "{outcome:?}");
            let report = outcome.report();
            assert_eq!((report.total(), report.last().trigger.as_str()), (lost, "exit"), "{report:?}");
            assert!(report.last().unseen.is_empty(), "{report:?}");
        }
    }
}

/// What a sandbox starts has the filter, and is not watched: it would be ended as it begins.
#[test]
fn a_program_that_a_sandbox_starts() {
    for (fate, lost) in [("lose", (1, 1337)), ("keep", (0, 0))] {
        let outcome = program("sandbox.c").args(["prctl", "launch", fate]).run_as_bare();
        assert_eq!(outcome.status.code(), Some(3), "{outcome:?}");
        let report = outcome.report();
        assert_eq!((report.triggers(), report.total()), (vec!["seccomp"], lost), "{report:?}");
    }
}

/// What the kernel does not take, what is no filter of this process, and what refuses nothing that we need, changes nothing.
#[test]
fn a_filter_that_is_none() {
    for (way, triggers) in [
        ("none", vec!["exit"]),
        ("refused", vec!["exit"]),
        ("probe", vec!["exit"]),
        ("unknown", vec!["seccomp", "exit"]),
        ("vfork", vec!["exit"]),
    ] {
        let outcome = program("sandbox.c").args([way, "clone", "lose"]).run_as_bare();
        let report = outcome.report();
        assert_eq!((report.total(), report.triggers()), ((2, 1337 + 999), triggers), "{way}: {report:?}");
    }
}

/// A child of a fork that another thread made while it asked for such a filter has none: it is watched.
/// What the one has closed for its own filter the other opened again, whose is refused.
#[test]
fn two_filters_at_once_of_which_one_is_refused() {
    for _ in 0..10 {
        let _ = program("two_filters.c").run().ok();
    }
}

#[test]
fn a_second_filter_behind_one_that_would_end_who_looks_at_it() {
    let _ = program("two_filters.c").arg("twice").run_as_bare().ok();
}

/// The scan before it takes long enough for the signal to come to it.
#[test]
fn a_filter_after_one_whose_call_a_handler_has_jumped_out_of() {
    for _ in 0..3 {
        let _ = program("two_filters.c").arg("jump").run().ok();
    }
}

#[test]
fn forks_beside_a_filter_that_the_kernel_does_not_take() {
    const CHILDREN: usize = 100;
    let outcome = program("refused.c").arg(CHILDREN.to_string()).deadline(120).run();
    let reports = outcome.ok().reports();
    let lost = reports.iter().filter(|report| report.total() == (1, 1337)).count();
    assert_eq!(lost, CHILDREN, "{} reports", reports.len());
}
