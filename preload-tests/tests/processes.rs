//! Processes of more than common kinds: handlers around fork, daemons, the first process of a namespace.

use harness::{App, Outcome, command, is_root, must, not_tested, program};
use std::process::Command;

fn app(what: &str, fate: &str, options: &str) -> App {
    program("processes.c").args([what, fate]).options(options)
}

/// The pid and the status that a line has said.
fn said(line: &str) -> (u32, i32) {
    let (pid, status) = line.split_once(' ').unwrap_or_else(|| panic!("no pid and status: {line}"));
    (pid.parse().unwrap(), status.parse().unwrap())
}

/// What the program's own handlers around a fork make is theirs, in the parent and in the child; other threads allocate meanwhile.
#[test]
fn handlers_around_fork_that_allocate() {
    for stop in ["ptrace", "signal"] {
        for options in ["", ":sample=1000", ":allocator=bundled"] {
            let run = |fate: &str| {
                let outcome =
                    app("around_forks", fate, &format!("interval=0:scan_at_exit=0:stop={stop}{options}")).run();
                let [(child, 4)] = outcome.ok().stdout.lines().map(said).collect::<Vec<_>>()[..] else {
                    panic!("{outcome:?}")
                };
                let (own, childs) = (outcome.report(), outcome.report_of(child));
                assert_eq!(
                    (own.triggers(), childs.triggers()),
                    (vec!["api", "api"], vec!["api", "api"]),
                    "{outcome:?}"
                );
                assert!(own.scans.iter().all(|scan| scan.via == stop && scan.threads == 4), "{own:?}");
                // Its parent's other threads are not in it.
                assert!(childs.scans.iter().all(|scan| scan.threads == 1), "{childs:?}");
                outcome.expect_none_freed();
                (own, childs)
            };
            let (own, childs) = run("keep");
            assert_eq!((own.total(), childs.total()), ((0, 0), (0, 0)), "{own:?} {childs:?}");
            if options == ":sample=1000" {
                continue;
            }
            let (own, childs) = run("lose");
            assert_eq!(own.total_through("in_prepare"), (50, 50 * 307), "{own:?}");
            assert_eq!(own.total_through("in_parent"), (50, 50 * 409), "{own:?}");
            assert_eq!(own.total(), (100, 50 * (307 + 409)), "{own:?}");
            assert_eq!(childs.total_through("in_prepare"), (50, 50 * 307), "{childs:?}");
            assert_eq!(childs.total_through("in_parent"), (49, 49 * 409), "{childs:?}");
            assert_eq!(childs.total_through("in_child"), (1, 503), "{childs:?}");
            assert_eq!(childs.total(), (100, 50 * 307 + 49 * 409 + 503), "{childs:?}");
        }
    }
}

#[test]
fn a_daemon_without_descriptors_a_terminal_or_its_folder() {
    for (fate, lost) in [("keep", (0, 0)), ("lose", (1, 1337))] {
        let app = app("daemon", fate, "");
        let mut running = app.start();
        assert_eq!(said(&running.line()).1, 4);
        let daemon: u32 = running.line().parse().unwrap();
        let ask = ["scan", &daemon.to_string(), "--format", "json", "--timeout", "10"];
        for _ in 0..2 {
            let _ = must(&mut command(ask));
        }
        let _ = must(Command::new("sh").args(["-c", &format!("kill -USR1 {daemon}")]));
        assert_eq!(said(&running.line()), (daemon, 0));
        let outcome = running.finish();
        let report = outcome.report_of(daemon);
        assert_eq!((report.pid, report.triggers()), (daemon, vec!["signal", "signal", "exit"]), "{report:?}");
        assert_eq!((report.total(), report.total_through("lose")), (lost, lost), "{fate}: {report:?}");
        let path = app.path(&format!("leakscan.{daemon}"));
        let asked = must(command(["report", "--scan", "2", "--format", "json"]).arg(path));
        assert_eq!(asked.matches(r#""status": "confirmed""#).count() as u64, lost.0, "{asked}");
        // Nothing of ours has been written where a descriptor of the daemon's was.
        assert_eq!((outcome.stdout.lines().count(), outcome.stderr.as_str()), (3, ""), "{outcome:?}");
        outcome.expect_clean();
    }
}

/// The run of process 1; none where the machine allows no namespaces, which is said.
fn in_namespace(what: &str, fate: &str) -> Option<Outcome> {
    let outcome = app(what, fate, "").run();
    if outcome.stdout.contains("no namespaces here\n") {
        not_tested("the first process of a namespace: none is allowed here");
        return None;
    }
    let [(_, 4)] = outcome.ok().stdout.lines().map(said).collect::<Vec<_>>()[..] else { panic!("{outcome:?}") };
    Some(outcome)
}

#[test]
fn the_first_process_of_a_namespace() {
    for (what, threads) in [("namespace", 1), ("namespace_and_proc", 2)] {
        for (fate, lost) in [("keep", (0, 0)), ("lose", (1, 1337))] {
            let Some(outcome) = in_namespace(what, fate) else { return };
            let report = outcome.report_of(1);
            assert_eq!(
                (report.pid, report.triggers()),
                (1, vec!["api", "api", "exit"]),
                "{what}: {outcome:?} {report:?}"
            );
            assert_eq!((report.total(), report.total_through("lose")), (lost, lost), "{what} {fate}: {report:?}");
            assert_eq!(report.summary.confirmed.blocks, lost.0, "{what} {fate}: {report:?}");
            assert!(report.scans.iter().all(|scan| scan.threads == threads), "{what}: {report:?}");
            assert!(report.scans.iter().all(|scan| scan.unseen.is_empty()), "{what}: {report:?}");
            assert_eq!(outcome.stderr, "", "{what}: {outcome:?}");
        }
    }
    let Some(outcome) = in_namespace("namespace_and_proc_and_register", "lose") else { return };
    let report = outcome.report_of(1);
    assert_eq!((report.total(), report.total_through("lose")), ((1, 1337), (1, 1337)), "{report:?}");
}

/// Where /proc is still that of the namespace outside, the other threads are found under other numbers, or the report names them.
#[test]
fn the_first_process_of_a_namespace_that_sees_the_proc_of_another() {
    for (fate, lost) in [("keep", (0, 0)), ("lose", (1, 1337))] {
        let Some(outcome) = in_namespace("namespace_and_threads", fate) else { return };
        let report = outcome.report_of(1);
        assert_eq!((report.triggers(), report.total_through("lose")), (vec!["api", "api", "exit"], lost), "{report:?}");
        assert_eq!(report.total(), lost, "{fate}: {report:?}");
        for scan in &report.scans {
            let unseen: u64 =
                scan.unseen.iter().filter(|unseen| unseen.what == "thread").map(|unseen| unseen.count).sum();
            assert_eq!(scan.threads + unseen, 2, "{report:?}");
        }
    }
}

/// What only a register of theirs has must not be confirmed.
#[test]
fn the_first_process_of_a_namespace_does_not_lose_what_a_register_keeps() {
    let Some(outcome) = in_namespace("namespace_and_register", "keep") else { return };
    let report = outcome.report_of(1);
    let confirmed: Vec<_> = report.through("make").filter(|leak| leak.status == "confirmed").collect();
    assert!(confirmed.is_empty(), "{report:?}");
}

/// Its output and its status are its own, and one line on stderr more says why there is no report.
#[test]
fn a_program_whose_report_has_no_place() {
    use std::os::unix::fs::PermissionsExt;
    let closed = |options: &str| {
        let app = app("output", "lose", &format!("log_path=closed/report{options}"));
        std::fs::create_dir(app.path("closed")).unwrap();
        std::fs::set_permissions(app.path("closed"), std::fs::Permissions::from_mode(0o555)).unwrap();
        if !is_root() {
            return app.run();
        }
        // Root may write everywhere: as nobody, then, who must be let to the library.
        std::fs::set_permissions(app.folder(), std::fs::Permissions::from_mode(0o755)).unwrap();
        app.as_nobody().run()
    };
    let loud = closed("");
    assert_eq!((loud.status.code(), loud.stdout.as_str()), (Some(7), "out\n"), "{loud:?}");
    let (ours, own): (Vec<_>, Vec<_>) = loud.stderr.lines().partition(|line| line.starts_with("leakscan: "));
    assert!(ours.len() == 1 && ours[0].contains("permission denied"), "{loud:?}");
    assert_eq!(own, ["error"], "{loud:?}");
    let quiet = closed(":quiet=1");
    assert_eq!((quiet.status.code(), quiet.stdout.as_str(), quiet.stderr.as_str()), (Some(7), "out\n", "error\n"));
}

/// A copy would be the init of that namespace, which is over when it ends.
#[test]
fn children_in_a_pid_namespace_of_their_own() {
    if !is_root() {
        return not_tested("pid namespaces, which only root can make");
    }
    let app = program("namespace.c");
    let outcome = app.clone().arg("user").run();
    assert_eq!(outcome.ok().stdout, "65534\ndone\n");
    for (app, told) in [
        (app.clone(), "its children are in another pid namespace"),
        (app.arg("no proc"), "could not read /proc/self/maps: no such file"),
    ] {
        let outcome = app.run();
        assert_eq!(outcome.ok().stdout, "done\n");
        assert!(outcome.stderr.contains(told), "{outcome:?}");
        assert!(outcome.reports().iter().all(|report| report.pid != outcome.pid), "{outcome:?}");
    }
}

/// The helper that is to stop its threads waits for the program to name it.
#[test]
fn programs_that_are_killed_while_they_are_scanned() {
    for options in ["interval=0:quiet=1", "interval=0:quiet=1:stop=signal"] {
        let outcome = program("killed.c").options(options).deadline(120).run();
        assert_eq!(outcome.ok().stdout, "nobody is left\n");
    }
}

/// What the threads that were gone first kept is no leak. (One of five such reports said so, 60 blocks, confirmed.)
#[test]
fn threads_that_were_killed_in_the_stop_have_lost_nothing() {
    for stop in ["ptrace", "signal"] {
        let options = format!("interval=0:quiet=1:stop={stop}");
        let outcome = program("killed_threads.c").options(&options).deadline(120).run();
        assert_eq!(outcome.ok().stdout, "done\n");
        for report in outcome.reports() {
            assert_eq!(report.total(), (0, 0), "{report:?}");
        }
    }
}
