//! Another library in LD_PRELOAD that stands around malloc, before ours or behind it: both do their work.

use harness::{App, program, source};

/// The program under the other library alone.
fn bare(fate: &str) -> App {
    program("wrapped.c").arg(fate).bare().preload_after(source("wrapping_library.c"))
}

/// The same under ours, which the other library stands before or behind.
fn watched(fate: &str) -> [(&'static str, App); 2] {
    let (app, other) = (|| program("wrapped.c").arg(fate), source("wrapping_library.c"));
    [("before", app().preload_before(&other)), ("behind", app().preload_after(&other))]
}

#[test]
fn a_library_around_malloc() {
    let calls = "1000 malloc, 1000 calloc, 1000 realloc, 2000 free\ndone\n";
    for (fate, blocks) in [("keep", 0), ("lose", 3)] {
        let alone = bare(fate).run();
        assert_eq!((alone.ok().stdout.as_str(), alone.files().len()), (calls, 0), "{alone:?}");
        for (place, app) in watched(fate) {
            let outcome = app.run();
            assert_eq!((&outcome.stdout, &outcome.stderr), (&alone.stdout, &alone.stderr), "{place}: {outcome:?}");
            outcome.expect_leaks(blocks, blocks * 1337);
            let report = outcome.report();
            assert_eq!(report.triggers(), ["api", "api", "exit"], "{place}: {report:?}");
            for function in ["by_malloc", "by_calloc", "by_realloc"] {
                let each = (blocks / 3, blocks / 3 * 1337);
                assert_eq!(report.total_through(function), each, "{place}: {report:?}");
            }
            let mut unseen = report.scans.iter().flat_map(|scan| &scan.unseen);
            // See `what_stands_before_us_is_named`.
            assert!(unseen.all(|unseen| place == "before" && unseen.what == "malloc"), "{place}: {report:?}");
            assert!(report.misuses.is_empty(), "{place}: {report:?}");
            outcome.expect_none_freed();
        }
    }
}

/// Of glibc's memory there is nothing then: whoever is behind us is not asked.
#[test]
fn a_library_around_malloc_beside_the_bundled_heap() {
    for (fate, blocks) in [("keep", 0), ("lose", 3)] {
        for (place, app) in watched(fate) {
            let outcome = app.options("allocator=bundled").run();
            outcome.expect_leaks(blocks, blocks * 1337);
            assert!(outcome.stdout.ends_with("done\n") && outcome.stderr.is_empty(), "{place}: {outcome:?}");
        }
    }
}

/// In front of us the other one is the caller, and stands in the stack.
#[test]
fn what_stands_before_us_is_in_the_stack() {
    let library = |leak: &harness::Leak, at: usize| leak.frames[at].module.clone().unwrap_or_default();
    for (place, app) in watched("lose") {
        let report = app.run().report();
        assert_eq!(report.leaks.len(), 3, "{report:?}");
        for leak in &report.leaks {
            let is_other = library(leak, 0).ends_with("/libwrapping_library.so");
            assert_eq!(is_other, place == "before", "{leak:?}");
            assert!(leak.functions()[usize::from(is_other)].starts_with("by_"), "{leak:?}");
        }
    }
}

/// It may serve what it likes by itself: the report says so, and what to do.
#[test]
fn what_stands_before_us_is_named() {
    let said = |unseen: &harness::Unseen| {
        (unseen.what.as_str(), unseen.count) == ("malloc", 1) && unseen.why.contains("put libleakscan.so first")
    };
    for (place, app) in watched("lose") {
        let outcome = app.run();
        outcome.expect_leaks(3, 3 * 1337);
        let report = outcome.report();
        for scan in &report.scans {
            assert_eq!(scan.unseen.len(), usize::from(place == "before"), "{place}: {report:?}");
            assert!(scan.unseen.iter().all(said), "{place}: {report:?}");
        }
    }
}

/// Nobody may call it before its constructor has run.
#[test]
fn a_library_around_malloc_that_is_ready_after_its_constructor() {
    let library = source("constructed_library.c");
    for (fate, blocks) in [("lose", 1), ("keep", 0), ("release", 0)] {
        let app = || program("entries.c").args(["malloc", fate]);
        app().preload_before(&library).run().expect_leaks(blocks, blocks * 1337);
        app().preload_after(&library).run().expect_leaks(blocks, blocks * 1337);
    }
}
