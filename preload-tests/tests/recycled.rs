//! Recycled memory: `zero=1` clears it. Frees left out on purpose: `forget=N` counts how many of these leaks are found.

use harness::{Outcome, program};

fn run(what: &str, options: &str) -> Outcome {
    program("recycled.c").arg(what).options(options).run()
}

/// What the last scan could not see, by name.
fn unseen(outcome: &Outcome) -> Vec<(String, u64)> {
    outcome.report().last().unseen.iter().map(|unseen| (unseen.what.clone(), unseen.count)).collect()
}

#[test]
fn a_stale_pointer_in_a_recycled_block_keeps_nothing_if_blocks_are_cleared() {
    for how in ["malloc", "realloc", "memalign"] {
        run(how, "").expect_clean();
        run(how, "zero=1").expect_leaks(1, 1337);
    }
    for options in ["", "zero=1"] {
        run("calloc", options).expect_leaks(1, 1337);
    }
}

#[test]
fn frees_that_are_left_out_are_found_and_what_keeps_the_others_is_told() {
    let outcome = run("many", "forget=50");
    outcome.expect_leaks(19, 1900);
    let kept = ("forgotten-kept".to_owned(), 1);
    assert_eq!(unseen(&outcome), [("forgotten".to_owned(), 20), kept], "{outcome:?}");
    let outcome = run("many", "");
    outcome.expect_clean();
    assert_eq!(unseen(&outcome), [], "{outcome:?}");
}
