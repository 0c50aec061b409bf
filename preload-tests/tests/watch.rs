//! The process that outlives the program (`watch=`): the ends that nobody in the program is told of.

use harness::{Outcome, Running, command, program, source};
use rustix::process::Signal;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::time::{Duration, Instant};

/// As what this test runs.
fn watch() -> &'static str {
    if harness::is_root() { "watch=root" } else { "watch=1" }
}

/// Who watches over a process, and has not ended.
fn watcher_of(pid: u32) -> Option<u32> {
    let name = format!("lswatch:{pid}");
    let is = |pid: &u32| {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        status.lines().next() == Some(&format!("Name:\t{name}")) && !status.contains("State:\tZ")
    };
    let processes = fs::read_dir("/proc").unwrap().flatten();
    processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).find(is)
}

fn wait_for_end_of_watcher(pid: u32) {
    let began = Instant::now();
    while watcher_of(pid).is_some() {
        assert!(began.elapsed() < Duration::from_secs(20), "it does not end");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn end(by: &str, options: &str) -> Outcome {
    let outcome = program("endings.c").arg(by).options(options).run_as_bare();
    wait_for_end_of_watcher(outcome.pid);
    outcome
}

fn is_scanned_when_gone(outcome: &Outcome) {
    let report = outcome.report();
    assert_eq!((report.triggers(), report.total()), (vec!["gone"], (1, 1337)), "{outcome:?} {report:?}");
    assert_eq!((report.leaks[0].status.as_str(), report.leaks[0].functions()[0]), ("suspected", "lose"));
    assert!(report.unseen("end").is_some(), "{report:?}");
}

#[test]
fn system_call_past_libc() {
    is_scanned_when_gone(&end("past_libc", watch()));
    assert_eq!(end("past_libc", "watch=0").files().len(), 0);
}

#[test]
fn stack_that_is_used_up() {
    let outcome = end("overflow", watch());
    assert_eq!(outcome.status.signal(), Some(11));
    is_scanned_when_gone(&outcome);
    assert_eq!(end("overflow", "watch=0").files().len(), 0);
}

#[test]
fn sigkill_from_outside() {
    for (options, files) in [(watch(), 1), ("watch=0", 0)] {
        let mut running = program("endings.c").arg("waits").options(options).start();
        assert_eq!(running.line(), "by waits");
        wait_until_asleep_in_read(&running);
        running.kill(Signal::KILL);
        let outcome = running.finish();
        wait_for_end_of_watcher(outcome.pid);
        assert_eq!((outcome.status.signal(), outcome.files().len()), (Some(9), files), "{outcome:?}");
        if files == 1 {
            is_scanned_when_gone(&outcome);
        }
    }
}

/// The block is lost before the program waits for a line.
fn wait_until_asleep_in_read(running: &Running) {
    let began = Instant::now();
    while !fs::read_to_string(format!("/proc/{}/syscall", running.pid())).unwrap().starts_with("0 0x0 ")
        && !fs::read_to_string(format!("/proc/{}/syscall", running.pid())).unwrap().starts_with("63 0x0 ")
    {
        assert!(began.elapsed() < Duration::from_secs(20), "it does not read");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// What another thread's stack holds is no leak, though that thread is gone, too.
#[test]
fn stacks_of_threads_that_ran() {
    is_scanned_when_gone(&end("thread_past_libc", watch()));
    let report = end("thread_past_libc", &format!("{}:use_stacks=0", watch())).report();
    assert_eq!(report.total().0, 2, "{report:?}");
}

/// Found lost while the program ran, and again when it was gone.
#[test]
fn lost_before_and_still() {
    let report = end("scanned_and_killed", watch()).report();
    assert_eq!((report.triggers(), report.total()), (vec!["api", "gone"], (1, 1337)), "{report:?}");
    assert_eq!(report.leaks[0].status, "confirmed");
}

#[test]
fn an_end_that_the_program_sees_is_scanned_once() {
    for by in ["return", "_exit", "segv", "raise_kill"] {
        let report = end(by, watch()).report();
        assert_eq!((report.triggers(), report.total()), (vec!["exit"], (1, 1337)), "{by}: {report:?}");
        assert_eq!(report.leaks[0].status, "confirmed");
    }
}

#[test]
fn it_has_nothing_of_the_programs() {
    let mut running = program("watched.c").arg("waits").options(watch()).start();
    assert_eq!(running.line(), "ready");
    let watcher = watcher_of(running.pid()).expect("it is there before the program begins");
    let link = |what: &str| fs::read_link(format!("/proc/{watcher}/{what}")).unwrap().display().to_string();
    let mut open: Vec<_> = fs::read_dir(format!("/proc/{watcher}/fd"))
        .unwrap()
        .map(|entry| link(&format!("fd/{}", entry.unwrap().file_name().to_str().unwrap())))
        .collect();
    open.sort_unstable();
    assert_eq!(open, ["/dev/null", "/dev/null", "/dev/null", "anon_inode:[pidfd]"]);
    assert_eq!(link("cwd"), "/");
    let stat = fs::read_to_string(format!("/proc/{watcher}/stat")).unwrap();
    let fields: Vec<_> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    assert_eq!((fields[2], fields[3]), (&*watcher.to_string(), &*watcher.to_string()), "group and session: {stat}");
    assert_ne!(fields[1], running.pid().to_string(), "it is no child of the program's");
    running.say("");
    let outcome = running.finish();
    assert_eq!((outcome.status.code(), outcome.report().triggers()), (Some(5), vec!["exit"]), "{outcome:?}");
    wait_for_end_of_watcher(outcome.pid);
}

/// The memory of the program before is not kept.
#[test]
fn it_ends_when_the_program_becomes_another() {
    let options = format!("{}:follow=0", watch());
    let mut running = program("watched.c").arg("execs").options(&options).start();
    assert_eq!(running.line(), "ready");
    assert!(watcher_of(running.pid()).is_some());
    running.say("");
    running.say("still here");
    assert_eq!(running.line(), "still here");
    wait_for_end_of_watcher(running.pid());
    running.close();
    let outcome = running.finish();
    assert_eq!((outcome.status.code(), outcome.files().len()), (Some(0), 0), "{outcome:?}");
}

#[test]
fn a_forked_child_has_its_own() {
    let mut running = program("watched.c").arg("forks").options(watch()).start();
    assert_eq!(running.line(), "lost");
    let children = fs::read_to_string(format!("/proc/{0}/task/{0}/children", running.pid())).unwrap();
    let child: u32 = children.trim().parse().expect("it has one child");
    assert!(watcher_of(child).is_some() && watcher_of(running.pid()).is_some());
    rustix::process::kill_process(rustix::process::Pid::from_raw(child as i32).unwrap(), Signal::KILL).unwrap();
    let outcome = running.finish();
    wait_for_end_of_watcher(child);
    wait_for_end_of_watcher(outcome.pid);
    let report = outcome.report_of(child);
    assert_eq!((report.triggers(), report.total()), (vec!["gone"], (1, 1337)), "{report:?}");
    assert_eq!(outcome.status.code(), Some(5));
}

/// Who has rights that may be given up is not watched over by a process that would keep them.
#[test]
fn rights_are_not_kept_unasked() {
    if harness::is_root() {
        let outcome = program("endings.c").arg("return").options("watch=1").run();
        let why = outcome.report().unseen("watch").expect("it is told").to_owned();
        assert!(why.contains("watch=root"), "{why}");
        let outcome = program("endings.c").arg("past_libc").options("watch=1").run();
        assert_eq!((watcher_of(outcome.pid), outcome.files().len()), (None, 0));
        let app = program("endings.c").arg("past_libc").options("watch=1").as_nobody();
        fs::set_permissions(app.folder(), fs::Permissions::from_mode(0o777)).unwrap();
        let outcome = app.run();
        wait_for_end_of_watcher(outcome.pid);
        is_scanned_when_gone(&outcome);
    } else {
        is_scanned_when_gone(&end("past_libc", "watch=1"));
    }
}

/// `leakscan run` waits for it.
#[test]
fn run_shows_what_it_has_found() {
    let folder = tempfile::tempdir().unwrap();
    let log = format!("--log-path={}/leakscan.%p", folder.path().display());
    let watch = format!("--{}", watch());
    let output = command(["run", &log, &watch, "--"]).arg(source("endings.c")).arg("kill_past_libc").output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(128 + 9), "{text}");
    assert!(text.contains("was killed by SIGKILL") && text.contains("1 scan, last after its end"), "{text}");
    assert!(text.contains("suspected: 1 block, 1.3 KiB in 1 stack (the program is gone)"), "{text}");
}
