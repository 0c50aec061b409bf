//! What a block that nobody reaches is called: direct, indirect, possible; suspected, confirmed, freed after all.

use harness::{Outcome, Report, program};

fn run(story: &str, options: &str) -> Outcome {
    let outcome = program("verdicts.c").arg(story).options(options).run();
    outcome.ok();
    outcome
}

/// Direct and indirect blocks and bytes, and what lies behind the direct ones.
fn shape(name: &str, direct: (u64, u64), indirect: (u64, u64)) -> Report {
    let outcome = run(name, "");
    let report = outcome.report();
    let sums = |kind: &str| {
        let leaks = report.leaks.iter().filter(|leak| leak.kind == kind);
        leaks.fold((0, 0), |sum, leak| (sum.0 + leak.blocks, sum.1 + leak.bytes))
    };
    assert_eq!((sums("direct"), sums("indirect")), (direct, indirect), "{name}: {report:?}");
    let behind = report.leaks.iter().filter(|leak| leak.kind == "direct");
    let behind = behind.fold((0, 0), |sum, leak| (sum.0 + leak.indirect_blocks, sum.1 + leak.indirect_bytes));
    assert_eq!(behind, indirect, "behind the direct ones: {name}: {report:?}");
    assert!(
        report.leaks.iter().all(|leak| leak.status == "confirmed" && leak.exact),
        "at exit all are sure: {report:?}"
    );
    assert_eq!(outcome.stat("direct_blocks") + outcome.stat("indirect_blocks"), direct.0 + indirect.0);
    report
}

/// The last scan of a report: what was there before the one at exit.
fn scan(story: &str) -> Report {
    run(story, "scan_at_exit=0").report()
}

#[test]
fn one_block() {
    let _ = shape("alone", (1, 101), (0, 0));
    let _ = shape("itself", (1, 101), (0, 0));
}

#[test]
fn blocks_behind_a_lost_block() {
    let _ = shape("chain", (1, 101), (1, 203));
    let _ = shape("chain_of_three", (1, 101), (2, 610));
    let _ = shape("shared", (2, 304), (1, 407));
    let _ = shape("middle_of_a_lost_block", (1, 101), (1, 1337));
}

#[test]
fn a_ring_has_one_leader() {
    let outcome = run("ring", "");
    outcome.expect_leaks(3, 711);
    let report = outcome.report();
    assert_eq!((report.summary.direct.blocks, report.summary.indirect.blocks), (1, 2), "{report:?}");
    let outcome = run("ring_with_a_tail", "");
    outcome.expect_leaks(4, 1520);
    assert_eq!(outcome.report().summary.direct.blocks, 1);
    let outcome = run("two_rings", "");
    outcome.expect_leaks(6, 1422);
    assert_eq!(outcome.report().summary.direct.blocks, 1);
}

#[test]
fn a_ring_behind_a_block_has_that_block_for_a_leader() {
    let _ = shape("ring_behind_a_block", (1, 809), (3, 711));
}

#[test]
fn long_lists_and_rings() {
    let _ = shape("long_list", (1, 32), (300_000, 9_600_000));
    let _ = shape("long_ring", (1, 32), (300_000, 9_600_000));
    run("kept_list", "").expect_clean();
}

#[test]
fn blocks_that_point_to_themselves() {
    let _ = shape("themselves", (1000, 101_000), (0, 0));
}

#[test]
fn lists_that_lead_into_a_ring() {
    let ring = 150_000 * 48;
    let _ = shape("list_into_a_ring", (1, 32), (299_999, 149_999 * 32 + ring));
    run("kept_list_into_a_ring", "").expect_clean();
    run("kept_list_into_a_ring", "use_globals=0").expect_leaks(300_000, 150_000 * 32 + ring);
    let _ = shape("list_that_ends_in_itself", (1, 32), (1000, 999 * 32 + 48));
    let _ = shape("two_lists_into_a_ring", (2, 32 + 203), (1999, 999 * 32 + 1000 * 48));
    let _ = shape("list_kept_from_its_ring_on", (1, 32), (999, 999 * 32));
}

#[test]
fn reached_only_through_the_middle() {
    run("to_the_middle", "possible=0").expect_clean();
    let report = run("to_the_middle", "possible=1").report();
    assert_eq!(report.total(), (1, 1337), "{report:?}");
    assert_eq!((report.leaks[0].kind.as_str(), report.summary.possible.bytes), ("possible", 1337), "{report:?}");
    let outcome = run("to_the_middle", "");
    assert_eq!((outcome.stat("possible_blocks"), outcome.stat("reachable_blocks")), (1, 1));
}

#[test]
fn what_a_possible_leak_points_to_is_possible_too() {
    let report = run("behind_the_middle", "possible=1").report();
    assert_eq!((report.summary.possible.blocks, report.summary.possible.bytes), (2, 1540), "{report:?}");
    run("behind_the_middle", "possible=0").expect_clean();
}

#[test]
fn suspected_once_confirmed_twice() {
    let report = scan("confirmed");
    assert_eq!(report.triggers(), ["api", "api"]);
    let (confirmed, suspected) = (report.summary.confirmed, report.summary.suspected);
    assert_eq!((confirmed.blocks, confirmed.bytes), (1, 101), "{report:?}");
    assert_eq!((suspected.blocks, suspected.bytes), (2, 304), "{report:?}");
    assert_eq!(report.through("alone").map(|leak| leak.first_scan).collect::<Vec<_>>(), [1]);
    assert!(report.through("chain").all(|leak| leak.first_scan == 2), "{report:?}");
    run("confirmed", "").expect_leaks(3, 405);
}

#[test]
fn a_suspected_leak_that_is_found_again_was_none() {
    let report = scan("found_again");
    assert_eq!((report.scans.len(), report.total()), (2, (0, 0)), "{report:?}");
    assert_eq!((report.summary.suspected_freed, report.summary.confirmed_freed), (0, 0), "{report:?}");
}

#[test]
fn a_leak_that_is_freed_later_is_counted() {
    let report = scan("freed_after_one");
    assert_eq!((report.summary.suspected_freed, report.summary.confirmed_freed), (1, 0), "{report:?}");
    assert_eq!(report.total(), (0, 0), "{report:?}");
    let report = scan("freed_after_two");
    assert_eq!((report.summary.suspected_freed, report.summary.confirmed_freed), (0, 1), "{report:?}");
    assert_eq!(report.total(), (0, 0), "{report:?}");
    let report = scan("grown_after_one");
    assert_eq!((report.summary.suspected_freed, report.summary.confirmed_freed), (1, 0), "{report:?}");
}

#[test]
fn a_kept_block_that_is_freed_is_not_counted() {
    let report = scan("kept_and_freed");
    assert_eq!((report.summary.suspected_freed, report.summary.confirmed_freed), (0, 0), "{report:?}");
    // Its head is freed: the rest of the list is lost.
    assert_eq!(report.total(), (300_000, 9_600_000), "{report:?}");
}

#[test]
fn another_block_at_the_place_of_a_suspected_one_is_suspected_only() {
    let report = scan("another_at_its_place");
    assert_eq!((report.summary.suspected.blocks, report.summary.confirmed.blocks), (1, 0), "{report:?}");
    assert_eq!(report.summary.suspected_freed, 1, "{report:?}");
}
