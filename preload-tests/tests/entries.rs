//! Every function that gives or takes a block: lost it is a leak of exactly the size asked for, kept or freed it is none.

use harness::{App, program};

fn entry(name: &str, fate: &str) -> App {
    program("entries.c").args([name, fate])
}

/// The block's bytes, and the function of the program that stands behind it in the stack.
fn lost_kept_and_released(name: &str, bytes: u64, caller: &str) {
    for options in ["", "sample=1", "stop=signal:depth=3"] {
        entry(name, "lose").options(options).run().expect_leaks(1, bytes);
        entry(name, "keep").options(options).run().expect_clean();
        entry(name, "release").options(options).run().expect_clean();
    }
    let report = entry(name, "lose").run().report();
    assert_eq!(report.total_through(caller), (1, bytes), "the stack shows {caller}: {report:?}");
}

#[test]
fn malloc_and_calloc() {
    lost_kept_and_released("malloc", 1337, "by_malloc");
    lost_kept_and_released("calloc", 1337, "by_calloc");
}

#[test]
fn realloc_in_all_its_ways() {
    lost_kept_and_released("realloc_of_nothing", 1337, "by_realloc_of_nothing");
    lost_kept_and_released("growing", 1337, "by_growing");
    lost_kept_and_released("shrinking", 1337, "by_shrinking");
    lost_kept_and_released("moving", 1337, "by_moving");
    lost_kept_and_released("moving_between_mappings", 1337, "by_moving_between_mappings");
    lost_kept_and_released("realloc_that_fails", 1337, "filled");
    lost_kept_and_released("realloc_to_nothing", 1337, "by_realloc_to_nothing");
    lost_kept_and_released("reallocarray", 1337, "by_reallocarray");
}

#[test]
fn aligned_blocks() {
    for name in ["posix_memalign", "posix_memalign_of_pages", "aligned_alloc", "memalign", "valloc", "pvalloc"] {
        lost_kept_and_released(name, 1337, &format!("by_{name}"));
    }
}

#[test]
fn blocks_that_libc_takes_for_the_program() {
    for name in ["strdup", "strndup", "asprintf", "getline"] {
        lost_kept_and_released(name, 1337, &format!("by_{name}"));
    }
}

#[test]
fn all_that_is_usable_may_be_written() {
    lost_kept_and_released("filling_what_is_usable", 1337, "by_filling_what_is_usable");
}

#[test]
fn every_way_to_free() {
    for way in ["free_sized", "free_aligned_sized", "cfree"] {
        entry("posix_memalign", way).run().expect_clean();
        entry("posix_memalign", way).options("sample=1").run().expect_clean();
    }
}

#[test]
fn sizes_are_those_asked_for() {
    let sum = |from: u64, to: u64| (from..=to).sum::<u64>();
    for (from, to) in [(0, 5000), (130_900, 131_200)] {
        let app = program("entries.c").arg("sizes").args([from.to_string(), to.to_string()]);
        app.run().expect_leaks(to - from + 1, sum(from, to));
    }
}

#[test]
fn sizes_of_large_blocks_are_those_asked_for() {
    let bytes = 131_071 + (131_072 - 24) + 132_001 + (1 << 20) + ((1 << 20) + 7) + ((32 << 20) + 1) + ((64 << 20) - 13);
    // A word whose upper half is a stale pointer's may hit 64 MiB in their middle: 1 run in 100 has such a possible leak.
    let report = entry("large", "lose").run().report();
    let (leaked, possible) = (report.total(), &report.summary.possible);
    assert_eq!((leaked.0 + possible.blocks, leaked.1 + possible.bytes), (7, bytes), "{report:?}");
    assert!(possible.blocks <= 1, "{report:?}");
}

#[test]
fn errno_is_what_the_real_functions_leave() {
    for options in ["", "sample=1", "sample=64", "unwind_check=0:interval=1"] {
        entry("errno", "").options(options).run().expect_clean();
    }
}

#[test]
fn blocks_made_without_us_pass_through_and_are_counted() {
    let outcome = entry("unknown", "").run();
    outcome.expect_clean();
    let report = outcome.report();
    let unseen = report.last().unseen.iter().find(|unseen| unseen.what == "free");
    assert_eq!(unseen.map(|unseen| unseen.count), Some(4), "{report:?}");
}

#[test]
fn what_the_library_itself_allocated_at_its_start_is_not_counted() {
    let report = entry("dlsym", "").run().report();
    assert_eq!(report.last().unseen.len(), 0, "{report:?}");
}
