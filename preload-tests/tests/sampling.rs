//! sample=BYTES: totals stay exact, figures per stack are unbiased estimates with their errors; sizes that leak get their stacks.

use harness::{Outcome, program};

fn run(options: &str) -> Outcome {
    let outcome = program("sampled.c").options(options).run();
    outcome.ok();
    outcome
}

#[test]
fn every_stack_is_exact_without_sampling() {
    let outcome = run("sample=0");
    outcome.expect_leaks(44_000, 80_000_000);
    let report = outcome.report();
    assert_eq!(report.total_through("lose_small"), (40_000, 40_000_000), "{report:?}");
    assert_eq!(report.total_through("lose_large"), (4_000, 40_000_000), "{report:?}");
    assert!(report.leaks.iter().all(|leak| leak.exact));
}

#[test]
fn totals_are_exact_however_few_stacks_are_recorded() {
    for options in ["sample=1", "sample=4096", "sample=512k", "sample=1g"] {
        let outcome = run(options);
        let stats = |name| outcome.stat(name);
        assert_eq!((stats("direct_blocks"), stats("direct_bytes")), (44_000, 80_000_000), "{options}");
        assert_eq!((stats("indirect_blocks"), stats("confirmed_bytes")), (0, 80_000_000), "{options}");
        assert_eq!(stats("live_blocks"), 45_000, "{options}");
        let report = outcome.report();
        assert!(report.last().unseen.iter().any(|unseen| unseen.what == "sampling"), "{report:?}");
        let direct = report.summary.direct;
        assert_eq!((direct.blocks, direct.bytes), (44_000, 80_000_000), "summary with {options}: {report:?}");
    }
}

#[test]
fn estimates_of_a_stack_are_near_the_truth() {
    // A block of 1,000 bytes is sampled with probability 0.217, one of 10,000 with 0.913: the relative standard deviations
    // of the estimates are 0.95 % and 0.49 %.
    for _ in 0..3 {
        let report = run("sample=4096").report();
        let near = |function: &str, blocks: f64, bytes: f64| {
            let (b, s) = report.total_through(function);
            assert!((b as f64 / blocks - 1.0).abs() < 0.05, "{function}: {b} blocks: {report:?}");
            assert!((s as f64 / bytes - 1.0).abs() < 0.05, "{function}: {s} bytes: {report:?}");
        };
        near("lose_small", 40_000.0, 40e6);
        near("lose_large", 4_000.0, 40e6);
        assert!(report.leaks.iter().filter(|leak| !leak.frames.is_empty()).all(|leak| !leak.exact), "{report:?}");
    }
}

#[test]
fn the_error_of_an_estimate_is_the_one_that_it_has() {
    // The probabilities above give standard errors of 380 blocks of 40,000 and 19.5 of 4,000.
    let (mut inside, mut runs) = (0, 0);
    for _ in 0..5 {
        let report = run("sample=4096").report();
        for (function, truth, size, error) in
            [("lose_small", 40_000.0, 1000.0, 380.0), ("lose_large", 4000.0, 10_000.0, 19.5)]
        {
            let leak = report.leaks.iter().find(|leak| leak.functions().contains(&function)).expect("sampled");
            let (blocks, bytes) = (leak.error_blocks as f64, leak.error_bytes as f64);
            assert!((blocks / error - 1.0).abs() < 0.15, "{function}: {blocks}");
            assert!((bytes / (error * size) - 1.0).abs() < 0.15, "{function}: {bytes}");
            inside += i32::from((leak.blocks as f64 - truth).abs() < 3.0 * error);
            runs += 1;
        }
    }
    assert!(inside >= runs - 1, "{inside} of {runs} within three standard errors");
}

/// Blocks lost by `function` in a scan, by number, as rows that name it.
fn named(outcome: &Outcome, scan: u32, function: &str) -> (u64, u64) {
    outcome.report_of_scan(scan).total_through(function)
}

#[test]
fn sizes_that_leak_get_their_stacks_from_the_next_scan_on() {
    directed_over("own");
}

/// Whose blocks have many bytes more than were asked for: their sizes are known by another way.
#[test]
fn and_so_they_do_over_the_bundled_allocator() {
    directed_over("bundled");
}

fn directed_over(allocator: &str) {
    let outcome = program("sampled.c").arg("live").options(&format!("sample=1g:allocator={allocator}")).run();
    outcome.ok();
    assert_eq!(named(&outcome, 1, "lose_odd"), (0, 0), "one block in a million is sampled: {outcome:?}");
    assert_eq!(named(&outcome, 2, "lose_odd"), (50, 50 * 777), "{outcome:?}");
    assert_eq!(named(&outcome, 2, "lose_other"), (0, 0), "a size that had not leaked yet: {outcome:?}");
    assert_eq!(named(&outcome, 3, "lose_odd"), (100, 100 * 777), "{outcome:?}");
    let report = outcome.report();
    let sizes = report.last().unseen.iter().find(|unseen| unseen.why.contains("these sizes")).expect("a line");
    assert_eq!(sizes.count, 2, "{report:?}");
    // These are counted, not estimated.
    assert!(report.leaks.iter().all(|leak| leak.error_blocks == 0), "{report:?}");
}

#[test]
fn without_directed_they_do_not() {
    let outcome = program("sampled.c").arg("live").options("sample=1g:directed=0").run();
    outcome.ok();
    assert!((1..=3).all(|scan| named(&outcome, scan, "lose_odd") == (0, 0)), "{outcome:?}");
    assert_eq!(outcome.stat("direct_blocks"), 200);
}

#[test]
fn reachable_blocks_are_not_leaks_when_sampled() {
    for options in ["sample=1", "sample=512k"] {
        let report = run(options).report();
        assert_eq!(report.total_through("keep"), (0, 0), "{report:?}");
    }
}
