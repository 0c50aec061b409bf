//! Ten programs as Debian has them, at their daily work: they do under leakscan what they do without it, and nothing is
//! reported that is no leak. What is reported was looked at one by one; `docs/real-programs.md` has each judgement.
//!
//! Programs that read lines work until two scans by the clock have seen them at it, and then as long again by themselves.

use harness::{App, Leak, Outcome, Report, Running, command, is_root, must, source_path};
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

/// What the two have done must be the same.
fn expect_same(watched: &Outcome, bare: &Outcome) {
    assert_eq!(watched.stdout, bare.stdout, "stdout under leakscan and by itself: {watched:?}");
    assert_eq!(watched.stderr, bare.stderr, "stderr under leakscan and by itself: {watched:?}");
    assert_eq!(watched.status, bare.status, "status under leakscan and by itself: {watched:?}");
}

/// Gives the program its line to work on again and again until a second scan by the clock is whole, and as often without us.
fn at_work(app: &App, line: &str) -> Outcome {
    let app = app.clone().options("interval=1");
    let turn = |running: &mut Running| {
        running.say(line);
        let _ = running.line();
    };
    let (mut running, mut turns) = (app.start(), 0);
    while running.scans() < 2 {
        turn(&mut running);
        turns += 1;
    }
    let watched = running.finish();
    let mut bare = app.bare().start();
    (0..turns).for_each(|_| turn(&mut bare));
    expect_same(&watched, &bare.finish());
    assert_eq!(watched.ok().freed_after_all(), (0, 0), "{watched:?}");
    watched
}

/// No scan of the running program has seen a leak. (The scan at its end is the last one.)
fn expect_no_live_leak(outcome: &Outcome) -> Report {
    let report = outcome.report();
    assert!(report.scans.len() > 2, "{report:?}");
    let path = outcome.app.path(&format!("leakscan.{}", outcome.pid));
    for scan in &report.scans[..report.scans.len() - 1] {
        let number = scan.scan.to_string();
        let text = must(command(["report", "--format", "json", "--all", "--scan", &number]).arg(&path));
        let live: Report = serde_json::from_str(&text).unwrap();
        assert!(live.leaks.is_empty(), "scan {number}: {live:?}");
    }
    report
}

/// Blocks and bytes of some leaks.
fn sum<'a>(leaks: impl IntoIterator<Item = &'a Leak>) -> (u64, u64) {
    leaks.into_iter().fold((0, 0), |sum, leak| (sum.0 + leak.blocks, sum.1 + leak.bytes))
}

/// Scans a process by `leakscan scan`.
fn scan(pid: u32) -> Report {
    let text = must(&mut command(["scan", &pid.to_string(), "--format", "json", "--all", "--timeout", "20"]));
    serde_json::from_str(&text).unwrap()
}

/// A server's end of a unix socket, as soon as it is there.
fn connect(path: &Path) -> UnixStream {
    let begun = Instant::now();
    loop {
        match UnixStream::connect(path) {
            Ok(stream) => return stream,
            Err(error) => assert!(begun.elapsed() < Duration::from_secs(20), "{path:?}: {error}"),
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn python3() {
    let app = App::new("/usr/bin/python3").arg(source_path("real_python.py"));
    for allocator in ["pymalloc", "malloc"] {
        let outcome = at_work(&app.clone().env("PYTHONMALLOC", allocator), "go");
        let report = expect_no_live_leak(&outcome);
        assert_eq!(sum(&report.leaks), (0, 0), "{allocator}: {report:?}");
    }
}

#[test]
fn sqlite3() {
    let app = App::new("sqlite3").arg("-batch").arg("readings.db");
    let outcome = at_work(&app, &format!(".read {}", source_path("real_sqlite3.sql").display()));
    assert!(outcome.stdout.starts_with("100000|"), "{outcome:?}");
    let report = expect_no_live_leak(&outcome);
    assert_eq!(sum(&report.leaks), (0, 0), "{report:?}");
}

#[test]
fn bash() {
    let outcome = at_work(&App::new("bash").arg(source_path("real_bash.sh")), "go");
    let report = expect_no_live_leak(&outcome);
    assert_eq!(sum(&report.leaks), (0, 0), "{report:?}");
    // Nor did any of its subshells, nor what they ran.
    assert_eq!(outcome.files().len(), 1, "{:?}", outcome.files());
}

#[test]
fn node() {
    let outcome = at_work(&App::new("node").arg("-e").arg(fs::read_to_string(source_path("real_node.js")).unwrap()), "go");
    let report = expect_no_live_leak(&outcome);
    assert_eq!(sum(&report.leaks), (0, 0), "{report:?}");
}

#[test]
fn perl_at_work() {
    let outcome = at_work(&App::new("perl").arg(source_path("real_perl.pl")), "go");
    let _ = expect_no_live_leak(&outcome);
}
