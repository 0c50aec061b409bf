//! Processes that a watched one starts: each has its own report, and leaves none where there is nothing to tell.

use harness::{App, Outcome, artifacts, command, program, source};

fn run(how: &str) -> Outcome {
    let outcome = program("forks.c").arg(how).run();
    outcome.ok();
    outcome
}

/// The pids and statuses that the program has said.
fn children(outcome: &Outcome) -> Vec<(u32, i32)> {
    let pair = |line: &str| {
        let (pid, status) = line.split_once(' ').unwrap();
        (pid.parse().unwrap(), status.parse().unwrap())
    };
    outcome.stdout.lines().map(pair).collect()
}

#[test]
fn a_fork_goes_on_with_a_report_of_its_own() {
    let outcome = run("fork");
    outcome.expect_leaks(1, 1337);
    let [(child, 4)] = children(&outcome)[..] else { panic!("{outcome:?}") };
    let report = outcome.report_of(child);
    assert_eq!((report.pid, report.total_through("lose_in_child")), (child, (1, 203)));
    assert_eq!((report.triggers(), report.total()), (vec!["exit"], (1, 203)), "{report:?}");
    assert_eq!(outcome.files().len(), 2);
}

#[test]
fn a_fork_that_ends_clean_leaves_no_file() {
    let outcome = run("clean_fork");
    outcome.expect_clean();
    assert_eq!(children(&outcome)[0].1, 4);
    assert_eq!(outcome.files().len(), 1, "{outcome:?}");
}

#[test]
fn a_fork_that_was_scanned_leaves_its_file() {
    let outcome = run("scanned_fork");
    let report = outcome.report_of(children(&outcome)[0].0);
    assert_eq!((report.triggers(), report.total()), (vec!["api", "exit"], (0, 0)));
}

#[test]
fn reports_of_parent_and_child_do_not_mix() {
    let outcome = run("fork_after_scan");
    outcome.expect_leaks(1, 1337);
    assert_eq!(outcome.report().triggers(), ["api", "api", "exit"]);
    let report = outcome.report_of(children(&outcome)[0].0);
    // What was lost before the fork is lost in both.
    assert_eq!((report.triggers(), report.total()), (vec!["api", "exit"], (1, 1337)), "{report:?}");
    assert_eq!(report.scans[0].scan, 1, "{report:?}");
}

#[test]
fn a_fork_of_a_fork() {
    let outcome = run("grandchild");
    outcome.expect_clean();
    let [(grandchild, 5), (child, 4)] = children(&outcome)[..] else { panic!("{outcome:?}") };
    assert_eq!(outcome.report_of(grandchild).total_through("lose_in_child"), (1, 203));
    assert!(!outcome.app.path(&format!("leakscan.{child}")).exists());
}

#[test]
fn a_fork_by_another_thread_than_main() {
    let outcome = run("fork_of_thread");
    outcome.expect_clean();
    let report = outcome.report_of(children(&outcome)[0].0);
    assert_eq!(report.total_through("lose_in_child"), (1, 203), "{report:?}");
    assert_eq!(report.total_through("keep"), (0, 0), "{report:?}");
}

#[test]
fn vfork_and_posix_spawn() {
    let outcome = run("vfork");
    outcome.expect_leaks(1, 1337);
    assert_eq!(children(&outcome).iter().map(|child| child.1).collect::<Vec<_>>(), [4, 0, 6]);
    assert_eq!((outcome.report().triggers(), outcome.files().len()), (vec!["exit"], 1));
    let outcome = run("spawn");
    outcome.expect_leaks(1, 1337);
    assert_eq!(outcome.files().len(), 1, "{outcome:?}");
}

#[test]
fn a_daemon_reports_when_it_ends() {
    let outcome = run("daemon");
    outcome.expect_clean();
    // Whoever reads its stdout has waited for it, as it keeps that open.
    let daemon = outcome.reports().into_iter().find(|report| report.pid != outcome.pid).expect("the daemon's report");
    assert_eq!(daemon.total_through("lose_in_child"), (1, 203));
}

#[test]
fn forks_of_a_program_whose_threads_allocate_do_not_hang() {
    for (children, how) in [("300", "sudden"), ("10", "exit"), ("10", "scan")] {
        for options in ["", "sample=1000:stop=signal", "allocator=bundled"] {
            let app = program("forks.c").args(["storm", children, how]).options(options);
            app.run().expect_clean();
        }
    }
}

/// While another thread holds a lock of libc's that fork waits for, and allocates; and in a signal handler that has interrupted malloc.
#[test]
fn forks_do_not_wait_for_who_waits_for_them() {
    for how in ["flushing", "forking"] {
        for options in ["scan_at_exit=0", "scan_at_exit=0:sample=1", "scan_at_exit=0:allocator=bundled"] {
            program("forks.c").arg(how).options(options).run().ok();
        }
    }
}

/// A script that ends as another program, one that starts it, and one that does so in the background.
#[test]
fn programs_behind_scripts_are_watched() {
    let leaky = source("forks.c");
    for script in ["exec \"$0\" lose", "\"$0\" lose; true", "\"$0\" lose & wait", "env X=1 \"$0\" lose; true"] {
        let outcome = App::new("sh").args(["-c", script]).arg(&leaky).run();
        outcome.ok();
        let reports = outcome.reports();
        let found: Vec<_> = reports.iter().filter(|report| report.exe.ends_with("/forks")).collect();
        assert_eq!(found.len(), 1, "{script}: {reports:?}");
        assert_eq!(found[0].total_through("lose_in_parent"), (1, 1337), "{script}");
    }
}

#[test]
fn many_short_processes_leave_no_litter() {
    let script = "for i in 1 2 3 4 5 6 7 8 9 10; do /bin/true; /bin/echo x | cat; (exit 0); done";
    let outcome = App::new("sh").args(["-c", script]).run();
    outcome.ok();
    assert!(outcome.files().len() <= 1, "{:?}", outcome.files());
}

#[test]
fn follow_0_leaves_other_libraries_in_the_environment() {
    let other = source("other_library.c");
    let leaky = source("forks.c");
    let script = "echo \"[$LD_PRELOAD]\"; \"$0\" lose";
    let app = |options: &str| App::new("sh").args(["-c", script]).arg(&leaky).options(options);
    let watched = |app: App| {
        let outcome = app.run();
        outcome.ok();
        let leaks = outcome.reports().iter().filter(|report| report.exe.ends_with("/forks")).count();
        (outcome.stdout, leaks)
    };
    let (name, ours) = (other.display(), artifacts().library.display());
    assert_eq!(watched(app("follow=1")), (format!("[{ours}]\n"), 1));
    assert_eq!(watched(app("follow=0")), ("[]\n".into(), 0));
    assert_eq!(watched(app("follow=0").preload_after(&other)), (format!("[{name}]\n"), 0));
    assert_eq!(watched(app("follow=0").preload_before(&other)), (format!("[{name}]\n"), 0));
    let both = app("follow=0").preload_before(&other).preload_after(&other);
    assert_eq!(watched(both), (format!("[{name}:{name}]\n"), 0));
}

#[test]
fn leakscan_run_shows_every_process_that_reported() {
    let leaky = source("forks.c");
    let folder = tempfile::tempdir().unwrap();
    let log = format!("--log-path={}/leakscan.%p", folder.path().display());
    let mut run = command(["run", &log, "--", "sh", "-c", "\"$0\" lose; \"$0\" fork; exit 7"]);
    let output = run.arg(&leaky).output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(7), "{text}");
    assert_eq!(text.matches("lose_in_parent").count(), 2, "{text}");
    assert_eq!(text.matches("lose_in_child").count(), 1, "{text}");
    let mut run = command(["run", &log, "--no-follow", "--fail-on-leak", "--", "sh", "-c", "\"$0\" lose"]);
    let output = run.arg(&leaky).output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && !text.contains("lose_in_parent"), "{text}");
    let mut run = command(["run", &log, "--fail-on-leak", "--", "sh", "-c", "\"$0\" lose; true"]);
    assert_eq!(run.arg(&leaky).output().unwrap().status.code(), Some(23));
}

#[test]
fn leakscan_run_shows_what_was_lost_before_an_exec() {
    let leaky = source("execs.c");
    let folder = tempfile::tempdir().unwrap();
    let log = format!("--log-path={}/leakscan.%p", folder.path().display());
    let output = command(["run", &log, "--fail-on-leak", "--"]).arg(&leaky).args(["execv", "lose"]).output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!((output.status.code(), text.matches("lose").count() > 0), (Some(23), true), "{text}");
    let output = command(["run", &log, "--fail-on-leak", "--"]).arg(&leaky).args(["execv", "keep"]).output().unwrap();
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn leakscan_run_lets_glibc_ask_for_large_pages() {
    let leaky = source("forks.c");
    let folder = tempfile::tempdir().unwrap();
    let log = format!("--log-path={}/leakscan.%p", folder.path().display());
    for (flag, said) in [
        ("--large-pages", "[glibc.malloc.check=0:glibc.malloc.hugetlb=1]\n"),
        ("--quiet=0", "[glibc.malloc.check=0]\n"),
    ] {
        let mut run = command(["run", flag, &log, "--", "sh", "-c", "echo \"[$GLIBC_TUNABLES]\"; exec \"$0\" lose"]);
        let output = run.arg(&leaky).env("GLIBC_TUNABLES", "glibc.malloc.check=0").output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(String::from_utf8_lossy(&output.stdout), said, "{text}");
        assert_eq!(text.matches("lose_in_parent").count(), 1, "{text}");
    }
}
