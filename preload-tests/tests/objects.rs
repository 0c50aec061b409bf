//! Objects of C++: a pointer to a part of one, or to what stands behind its header, keeps it all.

use harness::{Outcome, program};

fn run(kind: &str, fate: &str, options: &str) -> Outcome {
    let outcome = program("objects.cc").args([kind, fate]).options(&format!("interval=0:{options}")).run();
    assert_eq!(outcome.ok().report().triggers(), ["api", "api", "exit"], "{outcome:?}");
    outcome
}

/// Kept by the program's own data and by nothing else, and lost without it: one block that this function has made.
fn kept(kind: &str, bytes: u64, function: &str) {
    for options in ["", "allocator=bundled", "sample=1"] {
        run(kind, "keep", options).expect_clean();
    }
    for (fate, options) in [("lose", ""), ("lose", "allocator=bundled"), ("keep", "use_globals=0")] {
        let outcome = run(kind, fate, options);
        let report = outcome.report();
        assert_eq!(report.total_through(function), (1, bytes), "{kind} {fate} {options}: {report:?}");
        if fate == "lose" {
            outcome.expect_leaks(1, bytes);
            assert_eq!(report.summary.direct.blocks, 1, "{kind} {options}: {report:?}");
        }
    }
}

#[test]
fn arrays_with_and_without_their_number() {
    kept("array", 8 + 3 * 443, "new_array");
    kept("empty_array", 8, "new_empty_array");
    kept("plain_array", 1337, "new_plain_array");
    // libstdc++ asks for one byte where none is asked for.
    kept("plain_empty_array", 1, "new_plain_empty_array");
}

#[test]
fn other_bases_than_the_first_and_members() {
    kept("second_base", 3 * 16 + 1280, "new_second_base");
    kept("third_base", 3 * 16 + 1280, "new_third_base");
    kept("virtual_base", 8 + 1288 + 16, "new_virtual_base");
    kept("member", 3 * 16 + 1280, "new_member");
}

#[test]
fn pointers_of_the_library() {
    kept("shared_pointer", 16 + 1320, "make_shared");
    kept("shared_object", 16 + 1320, "make_shared_for_object");
    kept("weak_pointer", 16 + 1320, "make_weak");
    kept("unique_pointer", 1320, "make_unique");
    kept("string", 1337, "make_string");
}

#[test]
fn exceptions() {
    kept("exception_pointer", 128 + 1209, "make_exception");
    run("handled", "keep", "").expect_clean();
    let report = run("handled", "keep", "use_tls=0").report();
    assert_eq!(report.total_through("throw_it"), (1, 128 + 1209), "{report:?}");
}
