//! Another allocator underneath: blocks without headers, classes of size, blocks of 8 bytes.

use harness::{App, program, source};

fn over_another(app: App) -> App {
    app.preload_after(source("allocator.c"))
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
        "asprintf",
        "getline",
        "filling_what_is_usable",
    ] {
        for options in ["", "sample=1"] {
            let entry = |fate| over_another(program("entries.c").args([name, fate])).options(options);
            entry("lose").run().expect_leaks(1, 1337);
            entry("keep").run().expect_clean();
            entry("release").run().expect_clean();
        }
    }
}

/// Debian's jemalloc, which redis-server brings: it has operators of its own that do not come to malloc.
#[test]
fn operators_of_another_allocator() {
    let over_jemalloc = |form: &str, fate: &str| {
        program("operators.cc").args([form, fate]).preload_after("/usr/lib/x86_64-linux-gnu/libjemalloc.so.2")
    };
    for form in ["plain", "array", "nothrow", "array_nothrow", "direct_call"] {
        over_jemalloc(form, "lose").run().expect_leaks(1, 1337);
        over_jemalloc(form, "keep").run().expect_clean();
        over_jemalloc(form, "delete").run().expect_clean();
    }
    over_jemalloc("containers", "").run_as_bare().expect_clean();
}

#[test]
fn small_blocks_do_not_share_what_is_known_of_them() {
    let sizes = |from: &str, to: &str| over_another(program("entries.c").args(["sizes", from, to]));
    sizes("0", "2000").run().expect_leaks(2001, 2_001_000);
    for size in ["1", "7", "8", "9", "16", "17", "24"] {
        sizes(size, size).run().expect_leaks(1, size.parse().unwrap());
    }
}

#[test]
fn shapes_over_another_allocator() {
    for (story, blocks, bytes) in [("ring", 3, 711), ("chain", 2, 304), ("two_rings", 6, 1422)] {
        over_another(program("verdicts.c").arg(story)).run().expect_leaks(blocks, bytes);
    }
    over_another(program("verdicts.c").arg("kept_list")).run().expect_clean();
}

#[test]
fn roots_over_another_allocator() {
    for place in ["bss", "stack", "thread_stack", "tls", "anonymous", "memfd", "library_bss", "register"] {
        let app = program("roots.c").arg(place).arg(source("roots_library.c"));
        over_another(app).run().expect_clean();
    }
}

#[test]
fn forks_threads_and_exceptions_over_another_allocator() {
    over_another(program("forks.c").args(["storm", "20", "exit"])).run().ok();
    over_another(program("threads.c").args(["pass", "10"])).run().expect_clean();
    over_another(program("operators.cc").args(["containers", ""])).run_as_bare().expect_clean();
}
