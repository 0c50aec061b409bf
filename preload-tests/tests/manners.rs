//! A guest leaves no trace: what a program sees of its own process is the same as without us.

use harness::{App, program};
use std::path::Path;

fn same(what: &str) {
    for options in ["", "stop=signal", "sample=100:interval=1"] {
        let outcome = program("manners.c").arg(what).options(options).run_as_bare();
        assert_eq!(outcome.status.code(), Some(17), "{outcome:?}");
        assert!(outcome.stderr == "to stderr\n", "{outcome:?}");
    }
}

#[test]
fn descriptors() {
    same("descriptors");
}

#[test]
fn bytes_and_errors_in_sockets() {
    same("sockets");
}

#[test]
fn signal_handlers_and_masks() {
    same("signals");
}

#[test]
fn children_of_its_own_only() {
    same("children");
}

#[test]
fn threads_limits_and_the_rest() {
    same("more");
}

#[test]
fn a_snapshot_at_work_is_no_child_and_holds_nothing_open() {
    let mut app = program("snapshot.c").start();
    assert_eq!(app.line(), "up");
    // Stopped in the midst of its scan, after it has let go of the program's descriptors.
    let snapshot = app.hold_snapshot();
    app.say("wait");
    assert_eq!(app.line(), "no child");
    app.say("close");
    assert_eq!(app.line(), "closed");
    app.say("allocate");
    assert_eq!(app.line(), "allocated");
    snapshot.let_go();
    app.wait_for_scans(1);
    let outcome = app.finish();
    outcome.expect_leaks(1, 1337);
    assert_eq!(outcome.report().triggers(), ["signal", "exit"]);
}

#[test]
fn scripts_and_what_they_start() {
    let script = "set -e; echo $0 $#; for i in 1 2 3; do /bin/echo $i; done; \
                  echo abc | /usr/bin/tr a-c x-z | cat; (exit 3) || echo status $?; \
                  /bin/ls /nowhere 2>&1 | wc -l; sleep 0.01 & wait; trap 'echo bye' EXIT; exit 9";
    for shell in ["sh", "bash"] {
        let outcome = App::new(shell).args(["-c", script, "name", "one", "two"]).run_as_bare();
        assert_eq!(outcome.status.code(), Some(9), "{outcome:?}");
    }
}

/// Where the kernel gives out large pages unasked, each first touch of a sparse table would be one: 18 MB and four times the time of a
/// bare `cat`.
#[test]
fn what_we_map_stays_in_small_pages() {
    let are_any = Path::new("/sys/kernel/mm/transparent_hugepage").exists();
    let outcome = App::new("/bin/cat").arg("/proc/self/smaps").run();
    let (mut bytes, mut size, mut ours) = (0, 0, false);
    for line in outcome.stdout.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        if let ["VmFlags:", flags @ ..] = &words[..] {
            assert!(!ours || flags.contains(&"nh") || !are_any, "{size} bytes may come to be large pages: {flags:?}");
            bytes += if ours { size } else { 0 };
        } else if let Some((start, end)) = words[0].split_once('-') {
            let [start, end] = [start, end].map(|address| usize::from_str_radix(address, 16).unwrap());
            // Without a name, private, to be read and written: cat has nothing so large itself.
            (size, ours) = (end - start, words.len() == 5 && words[1] == "rw-p" && end - start >= 1 << 20);
        }
    }
    assert!(bytes >= 24 << 20, "only {bytes} bytes were looked at");
}
