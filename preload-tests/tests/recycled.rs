//! Recycled memory: cleared where blocks are partly written at most (`zero=used`), or everywhere (`zero=1`). Frees left out on purpose:
//! `forget=N` counts how many of these leaks are found.

use harness::{Outcome, program, source};

fn run(what: &str, options: &str) -> Outcome {
    program("recycled.c").arg(what).options(options).run()
}

/// What the last scan could not see, by name.
fn unseen(outcome: &Outcome) -> Vec<(String, u64)> {
    outcome.report().last().unseen.iter().map(|unseen| (unseen.what.clone(), unseen.count)).collect()
}

#[test]
fn a_stale_pointer_in_a_recycled_block_keeps_nothing() {
    for (how, allocator) in
        [("malloc", "own"), ("realloc", "own"), ("memalign", "own"), ("malloc", "bundled"), ("realloc", "bundled")]
    {
        let zero = |zero: &str| run(how, &format!("zero={zero}:allocator={allocator}"));
        zero("used").expect_leaks(1, 1337);
        zero("1").expect_leaks(1, 1337);
        zero("0").expect_clean();
    }
    for options in ["", "sample=512k", "sample=1"] {
        run("malloc", options).expect_leaks(1, 1337);
    }
    for options in ["zero=0", "", "zero=1"] {
        run("calloc", options).expect_leaks(1, 1337);
    }
}

fn sized(words: [&str; 3], options: &str) -> Outcome {
    program("recycled.c").args(words).options(options).run()
}

#[test]
fn all_is_cleared_of_blocks_that_are_often_partly_written() {
    for (how, size) in [("malloc", "129"), ("malloc", "8192"), ("realloc", "1100"), ("realloc", "60000")] {
        sized([how, size, "64"], "").expect_leaks(1, 1337);
        sized([how, size, "64"], "zero=0").expect_clean();
    }
    for (how, size) in [("malloc", "8200"), ("realloc", "70000")] {
        sized([how, size, "64"], "").expect_clean();
        sized([how, size, "64"], "zero=1").expect_leaks(1, 1337);
    }
}

#[test]
fn the_last_word_is_cleared_of_small_blocks() {
    for options in ["", "sample=512k", "sample=1", "allocator=bundled"] {
        sized(["malloc", "104", "96"], options).expect_leaks(1, 1337);
        sized(["malloc", "104", "64"], options).expect_clean();
    }
    sized(["malloc", "104", "96"], "zero=0").expect_clean();
    sized(["malloc", "104", "64"], "zero=1").expect_leaks(1, 1337);
}

#[test]
fn a_block_in_the_midst_of_an_old_one_is_recycled() {
    for options in ["", "sample=1", "zero=1"] {
        run("carved", options).expect_leaks(1, 1337);
    }
    run("carved", "zero=0").expect_clean();
}

#[test]
fn what_a_block_holds_is_kept() {
    for options in ["zero=used", "zero=1", "zero=used:sample=512k", "allocator=bundled"] {
        run("growing", options).expect_clean();
        // An allocator that does not say how much of a block is new.
        program("recycled.c").arg("growing").preload_after(source("untold.c")).options(options).run().ok();
    }
}

#[test]
fn memory_that_was_never_used_is_not_touched() {
    run("untouched", "").ok();
    assert_eq!(run("untouched", "zero=1").status.code(), Some(97), "what the test looks at does tell");
}

#[test]
fn frees_that_are_left_out_are_found_and_what_keeps_the_others_is_told() {
    let outcome = run("many", "forget=50");
    outcome.expect_leaks(18, 1800);
    let told = [("forgotten", 20), ("forgotten-possible", 1), ("forgotten-kept", 1), ("forgotten-behind", 1)];
    assert_eq!(unseen(&outcome), told.map(|(what, count)| (what.to_owned(), count)), "{outcome:?}");
    let outcome = run("many", "");
    outcome.expect_clean();
    assert_eq!(unseen(&outcome), [], "{outcome:?}");
}
