//! Another allocator underneath: blocks without headers, classes of size, blocks of 8 bytes.

use harness::{App, program, source};
use std::path::{Path, PathBuf};

/// Instead of glibc's: a small one of the tests' own, loaded behind us, and the one that we bring.
fn over_others(app: impl Fn() -> App, check: impl Fn(App)) {
    check(app().preload_after(source("allocator.c")));
    check(app().options("allocator=bundled"));
}

#[test]
fn every_entry_point_over_another_allocator() {
    for name in [
        "malloc",
        "calloc",
        "realloc_of_nothing",
        "growing",
        "shrinking",
        "moving_between_mappings",
        "realloc_that_fails",
        "realloc_to_nothing",
        "reallocarray",
        "posix_memalign",
        "posix_memalign_of_pages",
        "aligned_alloc",
        "memalign",
        "valloc",
        "strdup",
        "strndup",
        "asprintf",
        "getline",
        "filling_what_is_usable",
    ] {
        for options in ["", "sample=1"] {
            let entry = |fate, check: &dyn Fn(App)| {
                over_others(|| program("entries.c").args([name, fate]).options(options), check);
            };
            entry("lose", &|app| app.run().expect_leaks(1, 1337));
            entry("keep", &|app| app.run().expect_clean());
            entry("release", &|app| app.run().expect_clean());
        }
    }
}

/// The distribution's allocators, loaded after us. They have operators of their own that do not come to malloc; mimalloc and tcmalloc
/// define glibc's inner names (`__libc_malloc`), too.
fn packaged() -> [PathBuf; 3] {
    let path = |name| Path::new("/usr/lib/x86_64-linux-gnu").join(name);
    let mimalloc = ["libmimalloc.so.2", "libmimalloc.so.3"].map(path).into_iter().find(|path| path.exists());
    [path("libjemalloc.so.2"), mimalloc.expect("a libmimalloc"), path("libtcmalloc_minimal.so.4")]
}

#[test]
fn operators_of_another_allocator() {
    for allocator in packaged() {
        let over = |form: &str, fate: &str| program("operators.cc").args([form, fate]).preload_after(&allocator);
        for form in ["plain", "array", "nothrow", "array_nothrow", "direct_call"] {
            over(form, "lose").run().expect_leaks(1, 1337);
            over(form, "keep").run().expect_clean();
            over(form, "delete").run().expect_clean();
        }
        over("containers", "").run_as_bare().expect_clean();
    }
}

/// Before us in LD_PRELOAD their malloc is called: the report says so, and what to do.
#[test]
fn another_allocator_before_us() {
    for allocator in packaged() {
        for fate in ["lose", "keep", "release"] {
            let outcome = program("entries.c").args(["malloc", fate]).preload_before(&allocator).run_as_bare();
            outcome.expect_clean();
            let report = outcome.report();
            let said =
                |unseen: &&harness::Unseen| unseen.what == "malloc" && unseen.why.contains("put libleakscan.so first");
            assert_eq!(report.last().unseen.iter().filter(said).count(), 1, "{allocator:?} {report:?}");
        }
    }
}

#[test]
fn blocks_of_another_allocator() {
    for allocator in packaged() {
        for name in ["malloc", "calloc", "growing", "posix_memalign", "aligned_alloc", "memalign", "strdup", "strndup"]
        {
            let entry = |fate| program("entries.c").args([name, fate]).preload_after(&allocator).run();
            entry("lose").expect_leaks(1, 1337);
            entry("keep").expect_clean();
            entry("release").expect_clean();
        }
    }
}

#[test]
fn a_block_by_a_function_of_the_allocators_own_keeps_what_it_points_to() {
    let run = |fate| program("past_us.c").arg(fate).preload_after(source("allocator.c")).run();
    run("lose").expect_leaks(1, 1337);
    let kept = run("keep");
    kept.expect_clean();
    // Whether such a block is lost itself nobody knows.
    let unseen = kept.report().last().unseen.clone();
    assert!(unseen.len() == 1 && unseen[0].what == "allocator" && unseen[0].count == 1, "{unseen:?}");
}

/// Who looks for one of its functions takes the others for there, too.
#[test]
fn jemalloc_is_found_where_it_is() {
    let [jemalloc, ..] = packaged();
    for name in ["weak_names.c", "weak_names_sysv.c"] {
        let without = program(name).run_as_bare();
        without.expect_clean();
        assert!(without.stdout.ends_with("no sdallocx\ndone\n"), "{without:?}");
        let with = program(name).preload_after(&jemalloc).run();
        with.expect_clean();
        assert_eq!(with.stdout, program(name).bare().preload_after(&jemalloc).run().ok().stdout);
        assert!(with.stdout.ends_with("\nsdallocx\ndone\n"), "{with:?}");
    }
}

/// redis since 7.4 has its Lua's memory so. Who asks dlsym finds them without jemalloc, too: they do the same by other functions.
#[test]
fn jemallocs_own_functions() {
    let [jemalloc, ..] = packaged();
    for way in ["0", "1", "2", "3", "4"] {
        let app = |fate: &str| program("jemalloc.c").args([way, fate]);
        for over in [|app: App, library: &Path| app.preload_after(library), |app: App, _: &Path| app] {
            over(app("lose"), &jemalloc).run().expect_leaks(1, 1337);
            for fate in ["keep", "give", "give_sized", "free"] {
                let outcome = over(app(fate), &jemalloc).run();
                outcome.expect_clean();
                let report = outcome.report();
                assert!(report.misuses.is_empty() && report.last().unseen.is_empty(), "{way} {fate}: {report:?}");
                let blocks = if fate == "keep" { 2 } else { 1 };
                assert!(report.last().live_blocks >= blocks, "{report:?}");
            }
        }
    }
}

#[test]
fn small_blocks_do_not_share_what_is_known_of_them() {
    let sizes = |from: &str, to: &str, check: &dyn Fn(App)| {
        over_others(|| program("entries.c").args(["sizes", from, to]), check);
    };
    sizes("0", "2000", &|app| app.run().expect_leaks(2001, 2_001_000));
    for size in ["1", "7", "8", "9", "16", "17", "24"] {
        sizes(size, size, &|app| app.run().expect_leaks(1, size.parse().unwrap()));
    }
}

/// 13 blocks of 12 sizes and 1,401 bytes, whatever an allocator adds to them.
#[test]
fn sizes_are_those_that_were_asked_for() {
    let bytes = 33 + 300 + 333 + 700 + 1337 + 2600 + 5000 + 9000 + 20001 + 100_001 + 300_001 + 3_000_001 + 1401;
    for options in ["", "sample=1", "zero=1"] {
        program("sizes.c").options(options).run_as_bare().expect_leaks(13, bytes);
        over_others(|| program("sizes.c").options(options), |app| app.run_as_bare().expect_leaks(13, bytes));
    }
}

#[test]
fn shapes_over_another_allocator() {
    for (story, blocks, bytes) in [("ring", 3, 711), ("chain", 2, 304), ("two_rings", 6, 1422)] {
        over_others(|| program("verdicts.c").arg(story), |app| app.run().expect_leaks(blocks, bytes));
    }
    over_others(|| program("verdicts.c").arg("kept_list"), |app| app.run().expect_clean());
}

#[test]
fn roots_over_another_allocator() {
    for place in ["bss", "stack", "thread_stack", "tls", "anonymous", "memfd", "library_bss", "register"] {
        let app = || program("roots.c").arg(place).arg(source("roots_library.c"));
        over_others(app, |app| app.run().expect_clean());
    }
}

#[test]
fn forks_threads_and_exceptions_over_another_allocator() {
    over_others(|| program("forks.c").args(["storm", "20", "exit"]), |app| _ = app.run().ok());
    over_others(|| program("threads.c").args(["pass", "10"]), |app| app.run().expect_clean());
    over_others(|| program("operators.cc").args(["containers", ""]), |app| app.run_as_bare().expect_clean());
}

#[test]
fn the_bundled_one_leaves_earlier_blocks_to_the_one_that_made_them() {
    for options in ["", "allocator=bundled", "allocator=bundled:sample=1", "allocator=bundled:zero=1"] {
        let outcome = program("early.c").preload_after(source("early_library.c")).options(options).run();
        outcome.expect_leaks(1, 1337);
        assert!(outcome.report().last().unseen.iter().all(|unseen| unseen.what != "allocator"), "{outcome:?}");
    }
}

#[test]
fn where_the_bundled_one_is_not_used_the_report_says_so() {
    let other = program("entries.c").args(["malloc", "lose"]).preload_after(source("allocator.c"));
    let outcome = other.options("allocator=bundled").run();
    outcome.expect_leaks(1, 1337);
    let report = outcome.report();
    let why = report.last().unseen.iter().find(|unseen| unseen.what == "allocator").map(|unseen| &unseen.why);
    assert!(why.is_some_and(|why| why.contains("another allocator")), "{outcome:?}");
}

/// tbbmalloc's first blocks are such.
#[test]
fn blocks_at_no_multiple_of_16_are_counted_and_not_reported() {
    for options in ["", "sample=512k"] {
        let app = program("odd_blocks.c").options(options);
        app.clone().run().expect_leaks(3, 128);
        let outcome = app.preload_after(source("odd_allocator.c")).run();
        outcome.expect_leaks(1, 48);
        let report = outcome.report();
        let odd = report.last().unseen.iter().find(|unseen| unseen.what == "block").map(|unseen| unseen.count);
        assert_eq!(odd, Some(4), "{report:?}");
    }
}
