//! What a thread sees of a scan that sits in a blocking call: nothing, but for the calls that the kernel does not restart.

use harness::program;

/// The kernel never begins these anew (as with SIGSTOP and SIGCONT): where threads are stopped by ptrace, we have it do so.
const NEVER_RESTARTED: [&str; 4] = ["epoll_wait", "epoll_pwait", "sigwaitinfo", "semop"];
/// Nor this one, whose socket has a timeout: it begins anew, too, so that it is ended by the second scan in one wait.
const WITH_A_TIMEOUT: &str = "recv_with_timeout";
/// Nor these, which are told how long to wait, as the callers count.
const TOLD_HOW_LONG: [&str; 3] = ["epoll_wait_with_timeout", "sigtimedwait", "semtimedop"];
/// These give EINTR where threads are stopped by a signal, as with any signal that has a handler.
const NOT_RESTARTED_AFTER_A_HANDLER: [&str; 13] = [
    "poll",
    "poll_with_timeout",
    "ppoll",
    "select",
    "pselect",
    "nanosleep",
    "clock_nanosleep",
    "sleep",
    "pause",
    "sigsuspend",
    "msgrcv",
    "msgsnd",
    "sem_timedwait",
];
/// A signal's handler is what ends these.
const ENDED_BY_A_SIGNAL: [&str; 5] = ["nanosleep", "clock_nanosleep", "sleep", "pause", "sigsuspend"];

#[test]
fn blocking_calls_go_on_after_a_scan() {
    let names = program("blocking.c").bare().run();
    let names: Vec<&str> = names.ok().stdout.lines().collect();
    assert!(names.len() >= 50, "{names:?}");
    for way in ["ptrace", "signal"] {
        for name in &names {
            let is_any_of = |lists: &[&[&str]]| lists.iter().any(|list| list.contains(name));
            let interrupted = is_any_of(&[&TOLD_HOW_LONG])
                || way == "signal" && is_any_of(&[&NOT_RESTARTED_AFTER_A_HANDLER])
                || (way == "signal" || !cfg!(target_arch = "x86_64"))
                    && is_any_of(&[&NEVER_RESTARTED, &[WITH_A_TIMEOUT]]);
            let expected = match (interrupted, ENDED_BY_A_SIGNAL.contains(name)) {
                (true, _) => "scanned: EINTR\n",
                (false, true) => "scanned: goes on\nended: EINTR\n",
                (false, false) => "scanned: goes on\nended: done\n",
            };
            let options = format!("stop={way}:interval=0:scan_at_exit=0");
            let outcome = program("blocking.c").arg(name).options(&options).run();
            assert_eq!(outcome.ok().stdout, expected, "{name}, {way}: {outcome:?}");
            assert_eq!(outcome.report().triggers(), ["api"], "{name}, {way}");
        }
    }
}

/// A timeout is not to begin anew for ever.
#[test]
#[cfg(target_arch = "x86_64")]
fn calls_that_began_anew_are_scanned_again() {
    let run = |name: &str, scans: &str| {
        program("blocking.c")
            .args([name, scans])
            .options("stop=ptrace:interval=0:scan_at_exit=0")
            .run()
            .ok()
            .stdout
            .clone()
    };
    for name in NEVER_RESTARTED {
        assert_eq!(run(name, "3"), "scanned: goes on\n".repeat(3) + "ended: done\n", "{name}");
    }
    // The second one, unless the thread was taken from its CPU meanwhile: then it seems to be in its next wait.
    let seen = run(WITH_A_TIMEOUT, "9");
    let went_on = seen.matches("scanned: goes on\n").count();
    assert!((1..9).contains(&went_on) && seen.ends_with("scanned: EINTR\n"), "{seen}");
}

/// Each in its own wait, though at the same place.
#[test]
#[cfg(target_arch = "x86_64")]
fn a_thread_that_receives_again_and_again() {
    let outcome = program("receiver.c").options("stop=ptrace:interval=0:scan_at_exit=0").run();
    let report = outcome.ok().report();
    assert!(report.scans.len() == 20 && report.scans.iter().all(|scan| scan.via == "ptrace"), "{report:?}");
}
