//! sample=BYTES: totals stay exact, figures per stack are unbiased estimates.

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
fn reachable_blocks_are_not_leaks_when_sampled() {
    for options in ["sample=1", "sample=512k"] {
        let report = run(options).report();
        assert_eq!(report.total_through("keep"), (0, 0), "{report:?}");
    }
}
