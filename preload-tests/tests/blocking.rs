//! What a thread sees of a scan that sits in a blocking call: nothing, but for the calls that the kernel does not restart.

use harness::program;

/// With either way these give EINTR: the kernel never restarts them after a stop (as with SIGSTOP and SIGCONT).
const NEVER_RESTARTED: [&str; 8] = [
    "recv_with_timeout",
    "epoll_wait",
    "epoll_wait_with_timeout",
    "epoll_pwait",
    "sigwaitinfo",
    "sigtimedwait",
    "semop",
    "semtimedop",
];
/// These do where threads are stopped by a signal, as with any signal that has a handler.
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
            let interrupted =
                NEVER_RESTARTED.contains(name) || way == "signal" && NOT_RESTARTED_AFTER_A_HANDLER.contains(name);
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
