//! What other tools have died of: programs with their own malloc, loaders used in unusual ways, memory that is not what it
//! seems.

use harness::{App, HugePages, Outcome, not_tested, program, source};

fn odd(what: &str) -> App {
    program("odd.c").arg(what)
}

#[test]
fn a_program_with_its_own_malloc_runs_and_the_report_says_that_it_is_not_seen() {
    for source in ["own_malloc.c", "own_malloc_apart.c"] {
        let outcome = program(source).run_as_bare();
        let report = outcome.ok().report();
        assert_eq!(report.total(), (0, 0), "{report:?}");
        let [unseen] = &report.last().unseen[..] else { panic!("{report:?}") };
        assert_eq!((unseen.what.as_str(), unseen.count), ("malloc", 1), "{report:?}");
        assert!(unseen.why.starts_with("the program has a malloc of its own"), "{report:?}");
    }
}

#[test]
fn a_python_is_told_apart_from_one_that_uses_malloc() {
    // Debian's is linked at a fixed address and takes malloc's: its stub is no malloc of its own.
    let named = |allocator: &str| -> Vec<String> {
        let app = App::new("/usr/bin/python3").args(["-c", "print(1)"]).env("PYTHONMALLOC", allocator);
        let report = app.run_as_bare().ok().report();
        let named = report.last().unseen.iter().map(|unseen| unseen.what.clone());
        named.filter(|what| ["malloc", "pymalloc"].contains(&what.as_str())).collect()
    };
    assert_eq!(named("malloc"), [""; 0]);
    assert_eq!(named("pymalloc"), ["pymalloc"]);
}

#[test]
fn a_program_with_its_own_dl_iterate_phdr() {
    for options in ["", "stop=signal"] {
        program("own_iteration.c").options(options).run().expect_leaks(1, 1337);
    }
}

#[test]
fn threads_of_libgomp() {
    let outcome = program("openmp.c").run_as_bare();
    outcome.ok();
    outcome.expect_none_freed();
}

#[test]
fn libraries_that_bind_past_us() {
    // What such a library frees, it frees past us; what it takes by libc's strdup we see. Nothing breaks.
    let outcome = odd("deep").arg(source("stages_library.c")).run_as_bare();
    assert_eq!(outcome.ok().report().total_through("lose"), (1, 1337));
}

#[test]
fn libraries_in_a_namespace_of_their_own() {
    odd("namespace").arg(source("stages_library.c")).run_as_bare().expect_leaks(1, 1337);
}

#[test]
fn errors_of_the_loader_are_the_programs() {
    odd("dlerror").run().expect_leaks(1, 1337);
}

#[test]
fn statistics_of_the_allocator_stay_usable() {
    odd("statistics").run().expect_leaks(1, 1337);
}

#[test]
fn memory_that_is_locked() {
    odd("locked").run().expect_leaks(1, 1337);
}

#[test]
fn a_terabyte_that_is_only_reserved() {
    let outcome = odd("huge").deadline(30).run();
    outcome.expect_leaks(1, 1337);
    assert!(outcome.stat("root_bytes") < 16 << 20, "{outcome:?}");
}

#[test]
fn a_mapping_whose_file_was_cut() {
    let outcome = odd("cut_file").run();
    outcome.expect_leaks(1, 1337);
}

#[test]
fn a_program_that_has_overwritten_its_environment_is_scanned() {
    let mut app = odd("retitled").start();
    assert_eq!(app.line(), "up");
    let report = app.scan();
    assert_eq!((report.last().trigger.as_str(), report.total()), ("signal", (1, 1337)), "{report:?}");
    app.say("on");
    app.finish().expect_leaks(1, 1337);
}

/// Each looks for all libraries that are loaded when it closes one, while the others' go.
#[test]
fn libraries_that_several_threads_close_at_once() {
    let libraries = [source("other_library.c"), source("moving_library.c")];
    program("closing.c").args(libraries).run_as_bare().expect_clean();
}

/// Runs a program that serves its faults itself. `None` where it may not.
fn faults(words: [&str; 4], options: &str) -> Option<Outcome> {
    let outcome = program("faults.c").args(words).options(options).deadline(20).run();
    let refused = outcome.ok().stdout == "refused\n";
    if refused {
        not_tested(&format!("no userfaultfd is to be had here: {words:?}"));
    }
    (!refused).then_some(outcome)
}

const WAYS: [&str; 3] = ["call", "raw", "device"];

/// No scan was made, and why was said once.
fn refused_for_faults(outcome: &Outcome, said: &str) {
    assert_eq!(outcome.stdout, said, "{outcome:?}");
    assert!(outcome.stderr.contains("by userfaultfd") && outcome.stderr.lines().count() == 1, "{outcome:?}");
    assert_eq!(outcome.files().len(), 0, "{outcome:?}");
}

/// Where a clone would wait for a thread that stands still for it, no scan is made, and the program is told; the others go on.
#[test]
fn program_that_takes_note_of_its_forks() {
    for (what, way) in ["forks", "full"].into_iter().flat_map(|what| WAYS.map(|way| (what, way))) {
        for stop in ["auto", "signal"] {
            let options = format!("scan_at_exit=0:stop={stop}");
            if let Some(outcome) = faults([what, way, "mapping", "lose"], &options) {
                refused_for_faults(&outcome, "not scanned\ntold of a fork\ndone\n");
            }
        }
    }
}

/// The same where the one thread that there is would wait for itself, in the midst of the program and at its end.
#[test]
fn program_that_takes_note_of_its_forks_no_more() {
    for way in WAYS {
        for what in ["alone", "many"] {
            if let Some(outcome) = faults([what, way, "mapping", "lose"], "") {
                refused_for_faults(&outcome, "not scanned\ndone\n");
            }
        }
        if let Some(outcome) = faults(["at_end", way, "mapping", "lose"], "") {
            refused_for_faults(&outcome, "done\n");
        }
    }
}

/// When there is nothing to take note of any more, scans are made.
#[test]
fn program_that_lets_go_of_its_userfaultfd() {
    for (fate, lost) in [("keep", 0), ("lose", 1)] {
        if let Some(outcome) = faults(["closed", "call", "mapping", fate], "") {
            assert_eq!(outcome.stdout, "not scanned\ndone\n", "{outcome:?}");
            outcome.expect_leaks(lost, lost * 1337);
        }
    }
}

/// Pages that nobody fills are not waited for at the end.
#[test]
fn program_that_serves_its_faults_no_more() {
    for (way, place) in WAYS.into_iter().flat_map(|way| ["mapping", "data"].map(|place| (way, place))) {
        for (fate, lost) in [("keep", 0), ("lose", 1)] {
            if let Some(outcome) = faults(["unserved", way, place, fate], "") {
                outcome.expect_leaks(lost, lost * 1337);
                assert_eq!(outcome.stderr, "", "{outcome:?}");
            }
        }
    }
}

/// A copy would take more of them: the program's next write would end it, or empty the copy.
#[test]
fn huge_pages_of_which_there_are_no_more() {
    const PAGES: usize = 4;
    let Some(_pages) = HugePages::get(PAGES) else {
        return not_tested("huge pages, as the pool of them cannot be set to four");
    };
    for memory in ["reserved", "unreserved", "malloc"] {
        // (Of glibc's pages others have some, too.)
        for forks in if memory == "malloc" { &["forked"][..] } else { &["forked", "kept"] } {
            for (fate, blocks) in [("keep", 0), ("lose", 64)] {
                for options in ["", "stop=signal"] {
                    let tunables = if memory == "malloc" { "glibc.malloc.hugetlb=2" } else { "" };
                    let app = program("huge_pages.c").args([memory, *forks, fate, &PAGES.to_string()]);
                    let outcome = app.env("GLIBC_TUNABLES", tunables).options(options).run_as_bare();
                    outcome.expect_leaks(blocks, blocks * 1337);
                    let report = outcome.report();
                    assert_eq!(report.triggers(), ["api", "api", "api", "exit"], "{report:?}");
                    assert!(report.scans.iter().all(|scan| scan.unseen.is_empty()), "{memory} {forks}: {report:?}");
                }
            }
        }
    }
}

/// The kernel tells of them behind a line of any length.
#[test]
fn huge_pages_of_a_program_in_many_groups() {
    let Some(_pages) = HugePages::get(4) else {
        return not_tested("huge pages, as the pool of them cannot be set to four");
    };
    let app = program("huge_pages.c").args(["unreserved", "forked", "lose", "4"]).in_groups(600);
    app.run().expect_leaks(64, 64 * 1337);
}

/// Of a thread that waits in vfork nobody knows what its child does with the memory meanwhile: nothing is kept out, and there is no scan.
#[test]
fn huge_pages_beside_a_child_of_vfork() {
    let Some(_pages) = HugePages::get(4) else {
        return not_tested("huge pages, as the pool of them cannot be set to four");
    };
    for options in ["scan_at_exit=0", "scan_at_exit=0:stop=signal"] {
        let app = program("huge_pages.c").args(["unreserved", "vfork", "keep", "4"]).options(options);
        let mut running = app.start();
        assert_eq!(running.line(), "done");
        running.close();
        let outcome = running.finish();
        outcome.ok();
        assert_eq!(outcome.report().triggers(), ["api", "api"], "{outcome:?}");
        assert!(outcome.stderr.contains("its huge pages cannot be kept out of the copy"), "{outcome:?}");
    }
}
