//! What a scan cannot look at is in its report, with how much it is and why; and what it can look at is not.

use harness::{Outcome, program};

/// In each scan there is this much of it, said in these words; nothing else is unseen, and one block is a leak.
fn unseen(what: &str, options: &str, kind: &str, count: u64, why: &str) {
    // A program of one thread is not copied, most often; and beside another one it is.
    for beside in [&[][..], &["beside"]] {
        let run = |does: &str| -> Outcome {
            program("unseen.c").args([what, does]).args(beside).options(&format!("interval=0:{options}")).run()
        };
        let outcome = run("yes");
        outcome.expect_leaks(1, 1337);
        let report = outcome.report();
        assert_eq!((report.triggers(), report.total_through("lose")), (vec!["api", "api", "exit"], (1, 1337)));
        for scan in &report.scans {
            let [unseen] = &scan.unseen[..] else { panic!("{what} {beside:?}: {report:?}") };
            assert_eq!((unseen.what.as_str(), unseen.count), (kind, count), "{what} {beside:?}: {report:?}");
            assert!(unseen.why.contains(why), "{what} {beside:?}: {report:?}");
        }
        let outcome = run("no");
        outcome.expect_leaks(1, 1337);
        let report = outcome.report();
        assert!(report.scans.iter().all(|scan| scan.unseen.is_empty()), "{what} {beside:?}: {report:?}");
    }
}

#[test]
fn pages_without_any_permission() {
    unseen("closed", "", "closed-page", 5, "pages without any permission hold data: read as roots all the same");
    unseen("closed", "stop=signal", "closed-page", 5, "pages without any permission hold data");
}

#[test]
fn pages_behind_the_end_of_a_file_that_was_cut() {
    for what in ["cut_shared", "cut_private"] {
        unseen(what, "", "page", 5, "pages of the program could not be read");
    }
}

/// A file may be larger than memory.
#[test]
fn pages_of_a_large_file_that_are_not_in_memory() {
    unseen("page_of_file", "", "file-page", 5, "in their files, and not in memory");
}

#[test]
fn threads_that_run_on() {
    let run = |does: &str| {
        let outcome =
            program("unseen.c").args(["running", does]).options("interval=0:stop=signal:scan_at_exit=0").run();
        let report = outcome.ok().report();
        assert_eq!((report.scans.len(), report.total()), (2, (1, 1337)), "{report:?}");
        assert_eq!(report.total_through("lose"), (1, 1337), "{report:?}");
        report
    };
    let report = run("yes");
    assert!(report.leaks.iter().all(|leak| leak.status == "suspected"), "{report:?}");
    for scan in &report.scans {
        let unseen: Vec<_> = scan.unseen.iter().filter(|unseen| unseen.what == "thread").collect();
        assert!(unseen.len() == 1 && unseen[0].count == 1, "{scan:?}");
        let why = "did not stop; its stack was taken whole, its registers were not seen: nothing is confirmed";
        assert!(unseen[0].why.starts_with("tid ") && unseen[0].why.ends_with(why), "{scan:?}");
    }
    assert!(run("no").scans.iter().all(|scan| scan.unseen.is_empty()));
}

/// The signal that waits there is the one by which it was to be stopped.
#[test]
fn our_own_signal_is_none_whose_value_is_missed() {
    let report = program("unseen.c").args(["running", "yes"]).options("interval=0:stop=signal").run().ok().report();
    let unseen: Vec<_> = report.scans.iter().flat_map(|scan| &scan.unseen).map(|unseen| unseen.what.as_str()).collect();
    assert_eq!(unseen, ["thread"; 3], "{report:?}");
}

/// Its registers are not seen either, and so nothing is confirmed, as where a thread waits in vfork.
#[test]
fn what_a_register_of_a_thread_that_runs_on_keeps_is_not_confirmed() {
    let run = |does: &str| {
        program("unseen.c")
            .args(["register", does])
            .options("interval=0:stop=signal:scan_at_exit=0")
            .run()
            .ok()
            .report()
    };
    let report = run("no");
    assert_eq!((report.total(), report.total_through("lose")), ((1, 1337), (1, 1337)), "{report:?}");
    let report = run("yes");
    assert!(report.through("make").all(|leak| leak.status == "suspected"), "{report:?}");
}
