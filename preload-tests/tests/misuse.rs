//! Blocks freed the wrong way: libc's behaviour and message are kept, and the report has both stacks.

use harness::{Outcome, Report, program, source};

fn run(what: &str) -> Outcome {
    program("misuse.cc").arg(what).run()
}

/// Kind, families, count, and the two functions, of all misuses.
fn misuses(report: &Report) -> Vec<String> {
    let first = |frames: &[harness::Frame]| frames.first().and_then(|frame| frame.function.clone()).unwrap_or_default();
    let line = |misuse: &harness::Misuse| {
        let (made, freed) = (first(&misuse.made), first(&misuse.freed));
        let (what, blocks) = (&misuse.what, misuse.blocks);
        format!("{blocks} {what}: {} in {made}, {} in {freed}", misuse.made_by, misuse.freed_by)
    };
    report.misuses.iter().map(line).collect()
}

/// The program ends as without us: by the same signal, before which there is a last scan, and with libc's message.
fn ends_as_bare(what: &str, message: &str) -> Report {
    let outcome = run(what);
    let bare = program("misuse.cc").arg(what).bare().run();
    assert_eq!((outcome.status, &outcome.stderr), (bare.status, &bare.stderr), "{outcome:?}");
    assert!(outcome.stderr.contains(message), "{outcome:?}");
    let report = outcome.report();
    assert_eq!(report.triggers(), ["misuse", "exit"], "{report:?}");
    report
}

#[test]
fn a_block_freed_twice_is_in_the_report_with_both_stacks_before_libc_ends_the_program() {
    let report = ends_as_bare("double", "double free detected");
    assert_eq!(misuses(&report), ["1 double-free: malloc in made_here, free in freed_again"]);
    let report = ends_as_bare("double_delete", "double free detected");
    assert_eq!(misuses(&report), ["1 double-free: new in object_made_here, delete in deleted_here"]);
}

#[test]
fn a_freed_block_given_to_realloc_is_a_double_free() {
    let outcome = run("realloc_of_freed");
    assert_eq!(
        misuses(&outcome.report()),
        ["1 double-free: malloc in made_here, free in realloced_here"],
        "{outcome:?}"
    );
}

/// The bundled heap goes on, and gives the block to one owner only.
#[test]
fn what_is_freed_twice_over_the_bundled_allocator_is_reported_and_left_alone() {
    for (what, misuse) in [
        ("double", "1 double-free: malloc in made_here, free in freed_again"),
        ("double_delete", "1 double-free: new in object_made_here, delete in deleted_here"),
        ("realloc_of_freed", "1 double-free: malloc in made_here, free in realloced_here"),
        ("twice_and_again", "1 double-free: malloc in made_here, free in freed_again"),
        ("wild", "1 wild-free: - in , free in freed_here"),
    ] {
        let outcome = program("misuse.cc").arg(what).options("allocator=bundled").run();
        assert_eq!(outcome.ok().report().misuses.len(), 1, "{outcome:?}");
        assert_eq!(misuses(&outcome.report()), [misuse], "{outcome:?}");
    }
}

#[test]
fn an_address_that_is_no_blocks() {
    for what in ["wild", "wild_on_stack"] {
        let report = ends_as_bare(what, "free(): invalid pointer");
        assert_eq!(misuses(&report), ["1 wild-free: - in , free in freed_here"]);
    }
}

#[test]
fn an_address_that_comes_again_is_no_double_free() {
    let outcome = run("again");
    outcome.expect_clean();
    assert!(outcome.report().misuses.is_empty(), "{outcome:?}");
}

#[test]
fn blocks_freed_by_another_family_are_listed_with_both_stacks() {
    let outcome = run("mismatch");
    outcome.expect_clean();
    assert_eq!(
        misuses(&outcome.report()),
        [
            "3 mismatch: new[] in array_made_here, delete in deleted_here",
            "1 mismatch: new in object_made_here, free in freed_here"
        ],
        "{outcome:?}"
    );
}

#[test]
fn what_libc_refuses_it_refuses() {
    let outcome = program("misuse.cc").arg("refused").run_as_bare();
    outcome.expect_clean();
    assert!(outcome.report().misuses.is_empty(), "{outcome:?}");
}

/// C++ runtimes delete null pointers all the time.
#[test]
fn delete_of_no_block_says_nothing_of_the_next_free() {
    for options in ["", "sample=512k", "allocator=bundled"] {
        let outcome = program("misuse.cc").arg("nothing").options(options).run();
        outcome.expect_clean();
        assert_eq!(misuses(&outcome.report()), [""; 0], "{options}");
    }
}

/// What a library makes by operators of its own comes to us as from malloc.
#[test]
fn objects_made_or_deleted_by_a_librarys_own_operators_are_told_by_these() {
    let run = |what: &str| {
        let app = program("across_operators.cc").arg(source("private_operators.cc")).arg(what);
        misuses(&app.run().ok().report())
    };
    assert_eq!(run("right"), [""; 0]);
    assert_eq!(
        run("wrong"),
        [
            "1 mismatch: new in operator new(unsigned long), delete[] in array_deleted_here",
            "1 mismatch: new[] in operator new[](unsigned long), delete in object_deleted_here",
        ]
    );
}
