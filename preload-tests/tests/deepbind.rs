//! A library loaded with RTLD_DEEPBIND: its calls of malloc and free go to libc past us, unless we are told to take the flag out.

use harness::{Outcome, program, source};

fn run(what: &str, size: usize, options: &str) -> Outcome {
    program("deepbind.c").arg(what).arg(size.to_string()).arg(source("deepbind_library.c")).options(options).run()
}

/// How many items the last scan could not see, by name.
fn unseen(outcome: &Outcome, what: &str) -> u64 {
    outcome.report().last().unseen.iter().filter(|unseen| unseen.what == what).map(|unseen| unseen.count).sum()
}

#[test]
fn blocks_freed_past_us_are_no_leaks() {
    // Lists by thread, fast and small bins, joined chunks, and chunks that are mapped by themselves.
    for size in [1, 24, 40, 100, 200, 1000, 1337, 5000, 20_000, 200_000] {
        let outcome = run("freed", size, "");
        outcome.expect_clean();
        assert!(unseen(&outcome, "bypassed") > 0, "{size}: {outcome:?}");
        assert_eq!(unseen(&outcome, "deepbind"), 1, "{size}: {outcome:?}");

        let outcome = run("freed", size, "deepbind=0");
        outcome.expect_clean();
        assert_eq!((unseen(&outcome, "bypassed"), unseen(&outcome, "deepbind")), (0, 0), "{size}: {outcome:?}");
    }
}

#[test]
fn a_block_made_past_us_keeps_what_it_points_to() {
    for options in ["", "deepbind=0"] {
        run("held", 0, options).expect_clean();
        run("let_go", 0, options).expect_leaks(1, 1337);
        run("lose", 0, options).expect_leaks(1, 1337);
    }
}

#[test]
fn blocks_of_such_a_library_are_seen_without_the_flag() {
    run("lose_past", 0, "").expect_clean();
    run("lose_past", 0, "deepbind=0").expect_leaks(1, 1337);
}
