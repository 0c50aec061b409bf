//! What starts a scan of a program that runs: its clock, `leakscan scan`, its own call.

use harness::{App, command, is_root, must, program, source};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

#[test]
fn the_clock_scans_a_program_that_allocates() {
    let mut app = program("idle.c").arg("busy").options("interval=1").start();
    assert_eq!(app.line(), "up");
    app.wait_for_scans(2);
    app.say("stop");
    let outcome = app.finish();
    outcome.expect_leaks(1, 1337);
    let report = outcome.report();
    let (last, before) = report.scans.split_last().unwrap();
    assert!(before.iter().all(|scan| scan.trigger == "interval") && last.trigger == "exit", "{report:?}");
    assert_eq!(report.leaks[0].first_scan, 1);
}

#[test]
fn the_clock_can_be_stopped() {
    let mut app = program("idle.c").arg("busy").options("interval=0").start();
    assert_eq!(app.line(), "up");
    // What would have been due long ago if the clock ran: another scan, by which we know that it came here.
    std::thread::sleep(Duration::from_millis(1500));
    let report = app.scan();
    assert_eq!(report.triggers(), ["signal"]);
    app.say("stop");
    assert_eq!(app.finish().report().triggers(), ["signal", "exit"]);
}

/// Its report has a scan already, made when it was another program, or there is a report under that program's name: neither is the answer.
#[test]
fn one_that_has_become_another_program_answers() {
    for (name, pattern) in [("renamed", "leakscan.%p"), ("a", "%e.%p"), ("z", "%e.%p")] {
        let app = program("becomes.c");
        let copy = app.path(name);
        std::fs::copy(source("becomes.c"), &copy).unwrap();
        let mut app = app.arg(&copy).options(&format!("log_path={pattern}")).start();
        assert_eq!(app.line(), "up");
        for scan in 1..=2 {
            let report = app.scan();
            assert_eq!((report.triggers(), report.total()), (vec!["signal"; scan], (1, 1337)), "{name}: {report:?}");
        }
        app.say("end");
        app.finish().ok();
    }
}

/// Twice, so that the first finds the leak suspected and the second confirms it; not where a thread's registers are not all seen.
fn answers_when_asked(way: &str, options: &str) {
    let all_seen = !way.starts_with("blocked") || options != "stop=signal";
    let mut app = program("idle.c").arg(way).options(options).start();
    assert_eq!(app.line(), "up");
    for status in ["suspected", if all_seen { "confirmed" } else { "suspected" }] {
        let asked = Instant::now();
        let report = app.scan();
        assert!(asked.elapsed() < Duration::from_secs(1), "{way}: {:?}", asked.elapsed());
        assert_eq!(report.last().trigger, "signal");
        assert_eq!(report.total_through("lose"), (1, 1337), "{way}: {report:?}");
        assert_eq!(report.total(), (1, 1337), "{way}: {report:?}");
        assert_eq!(report.leaks[0].status, status);
    }
    app.say("on");
    let outcome = app.finish();
    assert_eq!(outcome.ok().report().total(), (1, 1337), "{way}: {outcome:?}");
    assert_eq!(outcome.report().triggers(), ["signal", "signal", "exit"]);
}

#[test]
fn an_idle_program_answers_within_a_second() {
    for way in ["read", "poll", "select", "epoll", "join"] {
        answers_when_asked(way, "");
    }
}

/// Its own folder in /proc tells nothing any more.
#[test]
fn one_whose_first_thread_has_ended_answers() {
    for stop in ["ptrace", "signal"] {
        let mut app = program("idle.c").arg("gone").options(&format!("stop={stop}")).start();
        assert_eq!((app.line(), app.line()), ("up".into(), "gone".into()));
        let told = must(&mut command(["doctor", &app.pid().to_string()]));
        assert!(told.contains("it listens to signal 58"), "{told}");
        for status in ["suspected", "confirmed"] {
            let report = app.scan();
            assert_eq!((report.total(), report.leaks[0].status.as_str()), ((1, 1337), status), "{report:?}");
        }
        app.say("on");
        assert_eq!(app.finish().ok().report().triggers(), ["signal", "signal", "exit"]);
    }
}

#[test]
fn a_busy_program_answers_within_a_second() {
    answers_when_asked("spin", "");
    answers_when_asked("busy", "");
}

#[test]
fn a_program_answers_though_a_thread_blocks_all_signals() {
    for stop in ["auto", "ptrace", "signal"] {
        answers_when_asked("blocked_in_main", &format!("stop={stop}"));
        answers_when_asked("blocked_in_thread", &format!("stop={stop}"));
    }
}

#[test]
fn another_signal_can_be_chosen() {
    answers_when_asked("read", "signal=10");
}

#[test]
fn many_requests_at_once_are_answered_by_a_scan_behind_the_last() {
    let mut app = program("idle.c").arg("read").start();
    assert_eq!(app.line(), "up");
    let pid = app.pid().to_string();
    let ask = || command(["scan", &pid, "--format", "json"]).stdout(Stdio::null()).spawn().unwrap();
    let asking: Vec<_> = (0..5).map(|_| ask()).collect();
    for mut one in asking {
        assert!(one.wait().unwrap().success());
    }
    app.say("on");
    let outcome = app.finish();
    outcome.expect_leaks(1, 1337);
    assert!(outcome.report().summary.damaged.is_empty());
}

/// What `leakscan scan` says where it cannot be answered.
fn refusal(pid: u32) -> String {
    let output = command(["scan", &pid.to_string()]).output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    String::from_utf8(output.stderr).unwrap()
}

#[test]
fn a_program_without_us_is_refused_and_not_harmed() {
    let mut app = program("idle.c").arg("read").bare().start();
    assert_eq!(app.line(), "up");
    let text = refusal(app.pid());
    assert!(text.contains("has no leakscan in it") && text.contains(&app.pid().to_string()), "{text}");
    app.say("on");
    app.finish().ok();
}

#[test]
fn a_process_that_is_not_there_is_refused() {
    let mut ended = Command::new("true").spawn().unwrap();
    ended.wait().unwrap();
    let text = refusal(ended.id());
    assert!(text.contains("there is no process"), "{text}");
}

#[test]
fn a_process_of_another_user_is_refused() {
    if !is_root() {
        // Only root can start another user's process; everybody else has one at hand.
        assert!(refusal(1).contains("belongs to someone else"));
        return;
    }
    let mut app = program("idle.c").arg("read").start();
    assert_eq!(app.line(), "up");
    let mut asked = Command::new("setpriv");
    asked.args(["--reuid=65534", "--regid=65534", "--clear-groups"]);
    // The built file may lie where only its owner may go.
    let copy = tempfile::tempdir_in("/tmp").unwrap();
    let tool = copy.path().join("leakscan");
    std::fs::copy(&harness::artifacts().leakscan, &tool).unwrap();
    let _ = must(Command::new("chmod").arg("755").arg(copy.path()).arg(&tool));
    let output = asked.arg(tool).args(["scan", &app.pid().to_string()]).output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(2) && text.contains("belongs to someone else"), "{output:?}");
    app.say("on");
    assert_eq!(app.finish().report().triggers(), ["exit"]);
}

#[test]
fn the_programs_own_call() {
    for name in ["api.c", "api_fixed.c", "api.cc"] {
        let app: App = program(name);
        let outcome = app.run();
        outcome.expect_leaks(1, 1337);
        assert_eq!(outcome.stdout, "loaded 1, scanned 1, scanned 1\n", "{name}");
        let report = outcome.report();
        assert_eq!(report.triggers(), ["api", "api", "exit"], "{name}");
        assert_eq!(report.leaks[0].first_scan, 1);
        let bare = app.bare().run();
        assert_eq!(bare.ok().stdout, "loaded 0, scanned 0, scanned 0\n", "{name}");
    }
}

/// One that comes to no report was not made.
#[test]
fn a_program_is_told_that_its_scan_failed() {
    let app = program("api.c").options("scan_at_exit=0:quiet=1:log_path=/nowhere/at/all");
    let outcome = app.run();
    assert_eq!(outcome.ok().stdout, "loaded 1, scanned 0, scanned 0\n", "{outcome:?}");
}

#[test]
fn a_scan_that_is_asked_for_while_another_one_ends_is_made() {
    // A copy of so much memory takes its time to go when its scan is done, and the program does nothing that would remind it.
    let mut app = program("idle.c").args(["read", "300"]).start();
    assert_eq!(app.line(), "up");
    for number in 1..=12 {
        let report = app.scan();
        assert_eq!((report.scans.len(), report.total()), (number, (1, 1337)), "{report:?}");
    }
    app.say("on");
    app.finish().expect_leaks(1, 1337);
}
