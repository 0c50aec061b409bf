//! The report file: where it goes, what it never touches, and what the program hears of it when it cannot be written.

use harness::{App, Outcome, is_root, must, program};
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

fn app() -> App {
    program("files.c")
}

/// Makes scans by the program's own call, and ends it.
fn scans(app: &App, number: usize) -> Outcome {
    let mut running = app.start();
    assert_eq!(running.line(), "up");
    for _ in 0..number {
        running.say("scan");
        assert!(running.line().ends_with("made"));
    }
    running.finish()
}

/// The program has gone on as ever, and has said once on stderr that there is no report, and why; with quiet=1, nothing.
fn refused(app: impl Fn() -> App, because: &str) {
    let outcome = scans(&app(), 3);
    outcome.ok();
    let lines: Vec<_> = outcome.stderr.lines().collect();
    assert!(lines.len() == 1 && lines[0].starts_with("leakscan: "), "one line was expected: {outcome:?}");
    assert!(lines[0].contains(because), "{because}: {outcome:?}");
    let outcome = scans(&app().options("quiet=1"), 3);
    assert_eq!(outcome.ok().stderr, "", "{outcome:?}");
}

#[test]
fn the_path_is_a_pattern() {
    let app = app().options("log_path=%e-%p.100%%");
    let outcome = scans(&app, 1);
    outcome.ok();
    let path = app.path(&format!("files-{}.100%", outcome.pid));
    let text = fs::read_to_string(&path).unwrap();
    assert!(text.starts_with("leakscan report 1\n"), "{text}");
}

#[test]
fn only_its_user_may_read_it() {
    for how in ["", "umask"] {
        let outcome = scans(&app().arg(how), 1);
        let status = fs::metadata(&outcome.files()[0]).unwrap();
        assert_eq!(status.permissions().mode() & 0o777, 0o600);
    }
}

#[test]
fn scans_follow_each_other_in_one_file() {
    let outcome = scans(&app(), 5);
    let report = outcome.report();
    assert_eq!(report.triggers(), ["api", "api", "api", "api", "api", "exit"]);
    assert_eq!(report.total(), (5, 5 * 1337));
    assert!(report.summary.damaged.is_empty());
}

#[test]
fn an_old_file_moves_aside() {
    // A pid can be had again only in a namespace of one's own, so the name is the same for another reason.
    let app = app().options("log_path=leakscan.report");
    let first = scans(&app, 1);
    let second = scans(&app, 2);
    let files = second.files();
    assert_eq!(files, [app.path("leakscan.report"), app.path("leakscan.report.old")]);
    let reports = second.reports();
    assert_eq!((reports[0].pid, reports[1].pid), (second.pid, first.pid));
    assert_eq!((reports[0].scans.len(), reports[1].scans.len()), (3, 2));
}

#[test]
fn a_file_that_was_taken_away_begins_anew() {
    let app = app().options("log_path=leakscan.report");
    let mut running = app.start();
    assert_eq!(running.line(), "up");
    running.say("scan");
    assert_eq!(running.line(), "made");
    fs::rename(app.path("leakscan.report"), app.path("leakscan.rotated")).unwrap();
    running.say("scan");
    assert_eq!(running.line(), "made");
    let outcome = running.finish();
    let reports = outcome.ok().reports();
    // Both are whole by themselves: header, modules and stacks stand in the second one again.
    assert_eq!((reports[0].triggers(), reports[0].total()), (vec!["api", "exit"], (2, 2674)), "{reports:?}");
    assert_eq!((reports[1].triggers(), reports[1].total()), (vec!["api"], (1, 1337)), "{reports:?}");
    assert_eq!(reports[0].total_through("lose"), (2, 2674), "{reports:?}");
}

#[test]
fn never_through_a_symbolic_link() {
    let made = |target: &str| {
        let app = app().options("log_path=leakscan.link");
        fs::write(app.path("precious"), "precious").unwrap();
        symlink(target, app.path("leakscan.link")).unwrap();
        app
    };
    refused(|| made("precious"), "symbolic link");
    refused(|| made("nowhere"), "symbolic link");
    let app = made("precious");
    let _ = scans(&app, 1);
    assert_eq!(fs::read_to_string(app.path("precious")).unwrap(), "precious");
    assert!(fs::symlink_metadata(app.path("leakscan.link")).unwrap().is_symlink());
}

#[test]
fn never_into_something_that_is_no_plain_file() {
    let made = |make: &[&str]| {
        let app = app().options("log_path=leakscan.thing");
        let _ = must(Command::new(make[0]).args(&make[1..]).arg(app.path("leakscan.thing")));
        app
    };
    // A pipe without a reader must not block either.
    refused(|| made(&["mkfifo"]), "in the way");
    refused(|| made(&["mkdir"]), "in the way");
    refused(|| app().options("log_path=/dev/full"), "in the way");
}

#[test]
fn never_over_another_users_file() {
    if !is_root() {
        // Only root can make one, but there are some.
        refused(|| app().options("log_path=/etc/passwd"), "another user");
        return;
    }
    let made = || {
        let app = app().options("log_path=leakscan.theirs");
        fs::write(app.path("leakscan.theirs"), "theirs").unwrap();
        std::os::unix::fs::chown(app.path("leakscan.theirs"), Some(65534), Some(65534)).unwrap();
        app
    };
    refused(made, "another user");
    let app = made();
    let _ = scans(&app, 1);
    assert_eq!(fs::read_to_string(app.path("leakscan.theirs")).unwrap(), "theirs");
    assert_eq!(fs::metadata(app.path("leakscan.theirs")).unwrap().uid(), 65534);
}

#[test]
fn folders_that_are_missing_or_no_folders() {
    refused(|| app().options("log_path=/no/such/folder/x"), "no such directory");
    refused(|| app().options("log_path=/proc/version/x"), "not a directory");
    refused(|| app().options(&format!("log_path={}", "x".repeat(300))), "too long");
}

#[test]
fn a_folder_that_may_not_be_written() {
    let closed = || {
        let app = app().options("log_path=closed/report");
        fs::create_dir(app.path("closed")).unwrap();
        fs::set_permissions(app.path("closed"), fs::Permissions::from_mode(0o555)).unwrap();
        if !is_root() {
            return app;
        }
        // Root may write everywhere: as nobody, then, who must be let to the library.
        fs::set_permissions(app.folder(), fs::Permissions::from_mode(0o755)).unwrap();
        app.as_nobody()
    };
    refused(closed, "permission denied");
}

/// What we say there, that no report can be written, was the end of the program.
#[test]
fn stderr_that_nobody_can_be_told_by() {
    for what in [&["pipe"][..], &["file"], &["pipe", "handled"], &["file", "handled"]] {
        let outcome = program("deaf.c").args(what).options("log_path=/nonexistent/report").run();
        assert_eq!(outcome.ok().files().len(), 0, "{outcome:?}");
    }
}

/// A file system in memory, for as long as it is here.
struct Mounted(std::path::PathBuf);

impl Mounted {
    fn new(place: std::path::PathBuf, options: &str) -> Self {
        fs::create_dir(&place).unwrap();
        let _ = must(Command::new("mount").args(["-t", "tmpfs", "-o", options, "leakscan-test"]).arg(&place));
        Self(place)
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).status();
    }
}

#[test]
fn a_file_system_that_is_read_only() {
    if !is_root() {
        // Only root can mount one.
        return a_folder_that_may_not_be_written();
    }
    let mounted = std::cell::RefCell::new(Vec::new());
    let app = || {
        let app = app().options("log_path=fixed/report");
        mounted.borrow_mut().push(Mounted::new(app.path("fixed"), "ro"));
        app
    };
    refused(app, "read-only");
}

#[test]
fn a_device_that_is_full() {
    if !is_root() {
        // Only root can mount one. The size limit below is the same way through the code.
        return a_limit_on_the_size_of_files();
    }
    let app = || app().options("log_path=small/report");
    let mount = |app: &App| {
        let mounted = Mounted::new(app.path("small"), "size=4k");
        fs::write(mounted.0.join("fills it"), [b'x'; 4096]).unwrap();
        mounted
    };
    let loud = app();
    let mounted = mount(&loud);
    let outcome = scans(&loud, 2);
    assert_eq!(outcome.ok().stderr.lines().count(), 1, "{outcome:?}");
    assert!(outcome.stderr.contains("no space left"), "{outcome:?}");
    // Nothing half is left, and with room again the next scan is written.
    assert!(fs::metadata(mounted.0.join("report")).map_or(0, |file| file.len()) == 0);
    let mut running = loud.start();
    assert_eq!(running.line(), "up");
    running.say("scan");
    let _ = running.line();
    fs::remove_file(mounted.0.join("fills it")).unwrap();
    running.say("scan");
    assert_eq!(running.line(), "made");
    running.finish().ok();
    let text = fs::read_to_string(mounted.0.join("report")).unwrap();
    assert!(text.contains("\nend ") && text.contains("unseen what=scan"), "{text}");
    let quiet = app().options("quiet=1");
    let _mounted = mount(&quiet);
    assert_eq!(scans(&quiet, 2).ok().stderr, "");
}

#[test]
fn a_limit_on_the_size_of_files() {
    refused(|| app().arg("no_file_size"), "too large");
    // In the midst of a block: what stood before stays whole, and nothing half behind it.
    let app = app();
    let mut running = app.start();
    assert_eq!(running.line(), "up");
    running.say("scan");
    assert_eq!(running.line(), "made");
    running.say("limit");
    let _ = running.line();
    let outcome = running.finish();
    outcome.ok();
    let report = outcome.report();
    assert_eq!((report.triggers(), report.total()), (vec!["api"], (1, 1337)), "{report:?}");
    assert!(report.summary.damaged.is_empty(), "{report:?}");
    assert!(outcome.stderr.contains("too large"), "{outcome:?}");
}

#[test]
fn a_program_without_stdout_stderr_or_descriptors() {
    let outcome = app().arg("closed").run();
    assert!(outcome.status.code().is_some(), "{outcome:?}");
    let outcome = scans(&app().arg("no_descriptors"), 2);
    outcome.expect_leaks(2, 2674);
}

#[test]
fn a_program_that_overwrites_its_arguments_and_environment() {
    scans(&app().arg("title"), 2).expect_leaks(2, 2674);
}

#[test]
fn a_program_that_changes_its_folder() {
    let app = app().options("log_path=leakscan.here");
    let mut running = app.start();
    assert_eq!(running.line(), "up");
    running.say("scan");
    assert_eq!(running.line(), "made");
    running.say("/");
    let _ = running.line();
    let outcome = running.finish();
    outcome.ok();
    let path = Path::new("/leakscan.here");
    let stray = path.exists();
    let _ = fs::remove_file(path);
    assert!(!stray, "a report in another folder than the program was started in");
    assert_eq!(outcome.reports()[0].triggers(), ["api", "api", "exit"]);
}

#[test]
fn options_that_are_not_understood_are_named_once() {
    let outcome = app().options("no_such_option=1:interval=never:scan_at_exit=0").run();
    let lines: Vec<_> = outcome.ok().stderr.lines().collect();
    assert_eq!(lines.len(), 2, "{outcome:?}");
    assert!(lines[0].contains("no_such_option=1") && lines[1].contains("interval=never"), "{outcome:?}");
    // The others hold.
    assert_eq!(outcome.files().len(), 0);
    let outcome = app().options("no_such_option=1:quiet=1").run();
    assert_eq!(outcome.ok().stderr, "");
}

/// What is begun as root goes on as the user that the program becomes for good; it stays root's where the program can be root again.
#[test]
fn a_program_that_becomes_another_user() {
    if !is_root() {
        return harness::not_tested("programs that begin as root, as the tests do not run as root");
    }
    for (way, owner) in [
        ("setuid", 65534),
        ("setreuid", 65534),
        ("setresuid", 65534),
        ("seteuid_setresuid", 65534),
        ("seteuid_setreuid", 65534),
        ("saved_alone", 65534),
        ("setuid_of_another", 3000),
        ("seteuid", 0),
        ("real", 0),
        ("real_alone", 0),
        ("back", 0),
        ("refused", 0),
        ("spawn", 0),
    ] {
        let app = program("users.c").arg(way);
        fs::set_permissions(app.folder(), fs::Permissions::from_mode(0o777)).unwrap();
        let outcome = app.run();
        outcome.expect_leaks(2, 1337 + 999);
        let report = outcome.report();
        let steps = if way.starts_with("seteuid_") || way == "saved_alone" { 3 } else { 2 };
        let triggers = [&["api"; 3][..steps], &["exit"]].concat();
        assert_eq!((report.triggers(), outcome.stderr.as_str()), (triggers, ""), "{way}: {outcome:?}");
        let file = fs::metadata(outcome.app.path(&format!("leakscan.{}", outcome.pid))).unwrap();
        assert_eq!((file.uid(), file.mode() & 0o777), (owner, 0o600), "{way}");
    }
}

/// Nobody but the program itself is told then of its timers, its mappings and its pages.
#[test]
fn a_program_that_has_become_another_user_and_may_not_be_looked_into() {
    if !is_root() {
        return harness::not_tested("programs that begin as root, as the tests do not run as root");
    }
    let run = |place: &str, fate: &str| {
        let app = program("dropped.c").args([place, fate]);
        fs::set_permissions(app.folder(), fs::Permissions::from_mode(0o777)).unwrap();
        let outcome = app.run();
        let named = |scan: &harness::Scan| scan.unseen.iter().map(|unseen| unseen.what.clone()).collect::<Vec<_>>();
        let unseen: Vec<_> = outcome.ok().report().scans.iter().map(named).collect();
        (outcome, unseen)
    };
    for (fate, lost) in [("keep", 0), ("lose", 1)] {
        for place in ["timer", "page"] {
            let (outcome, unseen) = run(place, fate);
            outcome.expect_leaks(lost, lost * 1337);
            assert_eq!(unseen, [["code"]; 3], "{place}: {outcome:?}");
        }
        // What was left out of a copy is not to be had; at the end there is none.
        let (outcome, unseen) = run("left out", fate);
        assert_eq!(unseen, [&["code", "not-forked"][..], &["code", "not-forked"], &["code"]], "{outcome:?}");
        assert_eq!(outcome.stats("confirmed_blocks"), [0, 0, lost], "{outcome:?}");
    }
}
