//! What lies where the program will not look again keeps nothing, and what lies beside it does.

use harness::program;

/// What each scan found lost.
fn scans(place: &str, options: &str) -> Vec<(u64, u64)> {
    let outcome = program("stale.c").arg(place).options(&format!("scan_at_exit=0:{options}")).run();
    outcome.ok();
    outcome.stats("direct_blocks").into_iter().zip(outcome.stats("direct_bytes")).collect()
}

const KEPT: (u64, u64) = (0, 0);
const LOST: (u64, u64) = (1, 1337);

#[test]
fn below_the_stack_pointer_of_a_context_that_runs() {
    for stop in ["stop=ptrace", "stop=signal"] {
        assert_eq!(scans("running on a block", stop), [LOST]);
        assert_eq!(scans("running on a mapping", stop), [LOST]);
        assert_eq!(scans("frame on a block", stop), [KEPT]);
        assert_eq!(scans("frame on a mapping", stop), [KEPT]);
    }
    assert_eq!(scans("before the stack", ""), [KEPT], "in the same block, but not of the stack");
    assert_eq!(scans("header in the stack", ""), [KEPT]);
}

#[test]
fn a_context_that_has_ended() {
    assert_eq!(scans("ended", ""), [LOST]);
    assert_eq!(scans("waiting", ""), [KEPT]);
    assert_eq!(scans("waiting where one has ended", ""), [KEPT]);
}

/// Its memory is something else by now, and the mark that it has left may still be there.
#[test]
fn what_lies_where_a_context_has_ended() {
    for what in ["another block", "small blocks", "the same block", "threads", "a pool"] {
        assert_eq!(scans(&format!("{what} where one has ended"), ""), [KEPT], "{what}");
    }
    assert_eq!(scans("small blocks where one has ended", "sample=1000000000"), [KEPT]);
}

#[test]
fn the_programs_own_memory_is_not_touched() {
    for place in ["shared mapping", "private mapping"] {
        assert_eq!(scans(place, ""), [LOST], "{place}");
    }
}

#[test]
fn values_under_deleted_keys() {
    for key in ["key 3", "key 60", "key of a thread"] {
        assert_eq!(scans(key, ""), [KEPT, LOST], "{key}");
    }
    assert_eq!(scans("key made anew", ""), [LOST]);
    // By a scan in the program's own memory, which may not be changed; and as if nothing was there, a copy is made.
    program("stale.c").arg("key at the end").run().expect_leaks(1, 1337);
}

#[test]
fn pages_that_were_given_back() {
    let run = |what: &str| scans(&format!("given back: {what}"), "");
    for what in ["page", "page of many", "every other page"] {
        assert_eq!(run(what), [LOST], "{what}");
    }
    for what in ["page beside it", "the others", "page taken again", "word beside it taken again", "ring"] {
        assert_eq!(run(what), [KEPT], "{what}");
    }
}

#[test]
fn free_heads_of_perls_values() {
    let run = |source: &str, what: &str| program(source).arg(what).run();
    run("perls.c", "free").expect_leaks(2, 2674);
    run("perls.c", "values").expect_clean();
    run("perls.c", "alike").expect_clean();
    run("not_perls.c", "free").expect_clean();
}

#[test]
fn dead_objects_of_gccs_collector() {
    let run = |source: &str, what: &str| program(source).arg(what).run();
    run("gccs.c", "objects").expect_leaks(1, 1337);
    // (While it runs a collection may be under way.)
    assert_eq!(run("gccs.c", "objects at work").stats("direct_blocks"), [0, 1]);
    run("gccs.c", "objects in use").expect_clean();
    run("gccs.c", "collecting").expect_clean();
    assert_eq!(run("gccs.c", "ended").stats("direct_blocks"), [0]);
    assert_eq!(run("gccs.c", "faulted").stats("direct_blocks"), [0]);
    run("not_gccs.c", "objects").expect_clean();
    run("gccs.c", "end of the list").expect_leaks(1, 1337);
    run("not_gccs.c", "end of the list").expect_clean();
}

/// A file may have the table of names that linkers wrote before 2006, alone; what other files define is found all the same.
#[test]
fn names_in_tables_of_old() {
    let outcome = program("gccs_sysv.c").arg("objects").run();
    outcome.expect_leaks(1, 1337);
    assert!(outcome.report().last().unseen.is_empty(), "no Python is there: {outcome:?}");
    program("gccs_sysv.c").arg("objects in use").run().expect_clean();
    let outcome = program("stale_sysv.c").arg("key 3").options("scan_at_exit=0").run();
    assert_eq!(outcome.stats("direct_blocks"), [0, 1]);
}
