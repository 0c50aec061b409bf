//! A snapshot child that is slow, hangs, or is killed: the program goes on, and no half block looks whole.

use harness::{Running, program, source};
use rustix::process::Signal;

fn start(options: &str) -> Running {
    let mut app = program("snapshot.c").options(options).start();
    assert_eq!(app.line(), "up");
    app
}

fn scan(app: &mut Running) {
    app.say("scan");
    assert_eq!(app.line(), "scanned");
}

#[test]
fn a_killed_one_is_told_and_the_next_scan_is_whole() {
    let mut app = start("");
    scan(&mut app);
    app.hold_snapshot().kill();
    scan(&mut app);
    let outcome = app.finish();
    outcome.expect_leaks(1, 1337);
    let report = outcome.report();
    assert_eq!(report.triggers(), ["api", "api", "exit"], "{report:?}");
    assert!(report.scans[1].unseen.iter().any(|unseen| unseen.what == "scan" && unseen.count == 1), "{report:?}");
    assert!(report.scans[2].unseen.iter().all(|unseen| unseen.what != "scan"), "{report:?}");
    assert!(report.summary.damaged.is_empty(), "{report:?}");
    assert_eq!(outcome.stderr.lines().count(), 1, "{outcome:?}");
    assert!(outcome.stderr.contains("a scan did not finish: it was ended by a signal"), "{outcome:?}");
}

#[test]
fn one_that_hangs_is_ended_by_its_deadline() {
    for quiet in [0, 1] {
        let mut app = start(&format!("deadline=1:quiet={quiet}"));
        let snapshot = app.hold_snapshot();
        snapshot.wait_for_its_deadline();
        snapshot.let_go();
        scan(&mut app);
        let outcome = app.finish();
        outcome.expect_leaks(1, 1337);
        let report = outcome.report();
        assert_eq!(report.triggers(), ["api", "exit"], "{report:?}");
        let why = &report.scans[0].unseen.iter().find(|unseen| unseen.what == "scan").expect("a hole is named").why;
        assert!(why.contains("deadline"), "{why}");
        assert_eq!(outcome.stderr.contains("its deadline has passed"), quiet == 0, "{outcome:?}");
        assert_eq!(outcome.stderr.lines().count(), 1 - quiet, "{outcome:?}");
    }
}

#[test]
fn a_scan_that_runs_is_not_doubled() {
    let mut app = start("");
    let snapshot = app.hold_snapshot();
    for _ in 0..3 {
        let ask = ["-c", &format!("kill -58 {}", app.pid())].map(str::to_owned);
        let _ = harness::must(std::process::Command::new("sh").args(ask));
    }
    app.say("allocate");
    assert_eq!(app.line(), "allocated");
    snapshot.let_go();
    // The one that was asked for meanwhile comes behind it, once.
    while app.scans() < 2 {
        app.say("allocate");
        assert_eq!(app.line(), "allocated");
    }
    let outcome = app.finish();
    outcome.expect_leaks(1, 1337);
    assert_eq!(outcome.report().triggers(), ["signal", "signal", "exit"]);
}

#[test]
fn the_end_of_the_program_waits_for_it() {
    let mut app = start("");
    let snapshot = app.hold_snapshot();
    app.close();
    snapshot.let_go();
    let outcome = app.finish();
    outcome.expect_leaks(1, 1337);
    assert_eq!(outcome.report().triggers(), ["signal", "exit"]);
}

#[test]
fn it_outlasts_a_program_that_is_killed() {
    let mut app = start("");
    let snapshot = app.hold_snapshot();
    app.kill(Signal::KILL);
    snapshot.let_go();
    app.wait_for_scans(1);
    let outcome = app.finish();
    let report = outcome.report();
    assert_eq!((report.triggers(), report.total()), (vec!["signal"], (1, 1337)), "{report:?}");
}

#[test]
fn killed_at_any_moment_it_leaves_no_half_block_that_looks_whole() {
    let mut app = start("");
    scan(&mut app);
    // Further and further into its work.
    for delay in 0..15 {
        let snapshot = app.hold_snapshot();
        let pid = snapshot.pid();
        snapshot.let_go();
        std::thread::sleep(std::time::Duration::from_millis(delay * 20));
        // It may have ended meanwhile.
        let _ = std::process::Command::new("sh").args(["-c", &format!("kill -9 {pid}")]).output().unwrap();
        app.say("wait");
        assert_eq!(app.line(), "no child");
        scan(&mut app);
    }
    app.kill(Signal::KILL);
    let outcome = app.finish();
    let report = outcome.report();
    assert!(report.summary.damaged.is_empty(), "{report:?}");
    assert!(report.triggers().iter().filter(|trigger| **trigger == "api").count() == 16, "{report:?}");
    assert_eq!(report.total(), (1, 1337), "{report:?}");
}

/// What is found in the midst of a realloc, in each of these places: what the program keeps is kept, and what it has given up is lost.
fn amid_a_realloc(name: &str, places: &[&str]) {
    for place in places {
        for (fate, lost) in [("keep", (0, 0)), ("lose", (1, 1337))] {
            let app = program(name).args([place, fate]).preload_after(source("moving_library.c"));
            let outcome = app.options("interval=0:scan_at_exit=0").run();
            let report = outcome.report();
            assert_eq!(
                (outcome.status.code(), report.total()),
                (Some(0), lost),
                "{place} {fate}: {outcome:?} {report:?}"
            );
        }
    }
}

/// What the map is told of the old one must not stand where another block's start does, nor in another block's midst.
#[test]
fn where_a_reallocs_old_block_was_there_may_be_another() {
    amid_a_realloc("moving.c", &["behind", "around", "longer"]);
}

/// Interrupted by a handler on the alternate stack, or where the thread has no place for its notes any more.
#[test]
fn where_a_realloc_is_caught_in_odd_places() {
    amid_a_realloc("caught.c", &["alternate", "destructor"]);
}
