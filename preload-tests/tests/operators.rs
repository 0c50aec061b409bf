//! C++: every form of operator new and delete, what they throw, and a program's own.

use harness::{App, program, source};

const FORMS: [(&str, u64); 11] = [
    ("plain", 1337),
    ("array", 1337),
    ("nothrow", 1337),
    ("array_nothrow", 1337),
    ("over_aligned", 1344),
    ("array_over_aligned", 1344),
    ("over_aligned_nothrow", 1344),
    ("array_over_aligned_nothrow", 1344),
    // Its new_handler has made room for it.
    ("second_try", 1 << 20),
    ("direct_call", 1337),
    // libstdc++ asks aligned_alloc for 1,344 bytes: a multiple of the alignment.
    ("direct_aligned_call", 1337),
];

fn form(name: &str, fate: &str) -> App {
    program("operators.cc").args([name, fate])
}

#[test]
fn every_form_of_new_is_a_leak_of_its_caller() {
    for (name, bytes) in FORMS {
        let outcome = form(name, "lose").run();
        outcome.expect_leaks(1, bytes);
        let report = outcome.report();
        // Neither our frames nor those of the operators stand before it.
        let first = report.leaks[0].functions()[0].to_owned();
        assert!(first == name || first.starts_with(&format!("{name}(")), "{name}: {report:?}");
    }
}

#[test]
fn what_is_kept_or_deleted_is_no_leak() {
    for (name, _) in FORMS {
        for options in ["", "sample=1"] {
            form(name, "keep").options(options).run().expect_clean();
            let outcome = form(name, "delete").options(options).run();
            outcome.expect_clean();
            let unseen = outcome.report().last().unseen.clone();
            assert!(unseen.iter().all(|unseen| unseen.what == "sampling"), "{name}: {unseen:?}");
        }
    }
}

#[test]
fn bad_alloc_and_new_handler_work() {
    for options in ["", "sample=1"] {
        let failures = form("failures", "").options(options);
        for app in [failures.clone(), failures.preload_after(source("aligned_library.cc"))] {
            let outcome = app.run_as_bare();
            outcome.expect_clean();
            // The exceptions' own blocks are nobody else's.
            let report = outcome.report();
            assert_eq!(report.misuses.len(), 0, "{report:?}");
        }
    }
}

#[test]
fn containers_and_exceptions_work() {
    form("containers", "").run_as_bare().expect_clean();
    form("containers", "").options("sample=512").run_as_bare().expect_clean();
}

#[test]
fn a_string_and_its_text() {
    let outcome = form("string", "").run();
    outcome.expect_leaks(2, 32 + 1337);
    let report = outcome.report();
    assert_eq!((report.summary.direct.blocks, report.summary.direct.bytes), (1, 32), "{report:?}");
    assert_eq!((report.summary.indirect.blocks, report.summary.indirect.bytes), (1, 1337), "{report:?}");
    let direct = report.leaks.iter().find(|leak| leak.kind == "direct").unwrap();
    assert_eq!((direct.indirect_blocks, direct.indirect_bytes), (1, 1337), "{report:?}");
}

#[test]
fn blocks_freed_by_another_family_are_counted() {
    let outcome = form("mismatches", "").run();
    outcome.expect_clean();
    let report = outcome.report();
    assert_eq!(report.misuses.iter().map(|misuse| misuse.blocks).sum::<u64>(), 5, "{report:?}");
}

#[test]
fn a_programs_own_operators_keep_working() {
    let outcome = program("own_operators.cc").run_as_bare();
    outcome.expect_leaks(1, 1337);
    assert!(outcome.stdout.ends_with(" made, 2 deleted\n"), "{outcome:?}");
    let report = outcome.report();
    assert_eq!(report.total_through("lose"), (1, 1337), "{report:?}");
}

#[test]
fn a_librarys_own_operators_keep_working() {
    let library = source("operator_library.cc");
    let containers = form("containers", "");
    let alone = containers.clone().bare().preload_after(&library).run();
    assert!(alone.stderr.contains(" made, ") && !alone.stderr.starts_with("0 made"), "{alone:?}");
    for watched in [containers.clone().preload_after(&library), containers.preload_before(&library)] {
        let outcome = watched.run();
        outcome.expect_clean();
        assert_eq!((&outcome.stderr, outcome.status), (&alone.stderr, alone.status));
        let report = outcome.report();
        assert_eq!(report.misuses.len(), 0, "{report:?}");
    }
}
