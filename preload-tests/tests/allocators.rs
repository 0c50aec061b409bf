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

/// Debian's allocators, loaded after us. They have operators of their own that do not come to malloc; mimalloc and tcmalloc
/// define glibc's inner names (`__libc_malloc`), too.
const ALLOCATORS: [&str; 3] = [
    "/usr/lib/x86_64-linux-gnu/libjemalloc.so.2",
    "/usr/lib/x86_64-linux-gnu/libmimalloc.so.2",
    "/usr/lib/x86_64-linux-gnu/libtcmalloc_minimal.so.4",
];

#[test]
fn operators_of_another_allocator() {
    for allocator in ALLOCATORS {
        let over = |form: &str, fate: &str| program("operators.cc").args([form, fate]).preload_after(allocator);
        for form in ["plain", "array", "nothrow", "array_nothrow", "direct_call"] {
            over(form, "lose").run().expect_leaks(1, 1337);
            over(form, "keep").run().expect_clean();
            over(form, "delete").run().expect_clean();
        }
        over("containers", "").run_as_bare().expect_clean();
    }
}

#[test]
fn blocks_of_another_allocator() {
    for allocator in ALLOCATORS {
        for name in ["malloc", "calloc", "growing", "posix_memalign", "aligned_alloc", "memalign", "strdup"] {
            let entry = |fate| program("entries.c").args([name, fate]).preload_after(allocator).run();
            entry("lose").expect_leaks(1, 1337);
            entry("keep").expect_clean();
            entry("release").expect_clean();
        }
    }
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
