//! Many threads and deep stacks: what they keep is kept, what they lose is found, and all of them are counted.

use harness::{App, program};

fn app(words: &[&str], options: &str) -> App {
    program("scale.c").args(words).options(&format!("interval=0:{options}"))
}

#[test]
fn a_thousand_waiting_threads() {
    for stop in ["ptrace", "signal"] {
        for (fate, lost) in [("keep", (0, 0)), ("lose", (1, 1337))] {
            let outcome = app(&["many", fate], &format!("stop={stop}")).run();
            let report = outcome.ok().report();
            assert_eq!(report.triggers(), ["api", "api", "exit"], "{report:?}");
            for (at, scan) in report.scans.iter().enumerate() {
                assert_eq!((scan.via.as_str(), scan.threads), (stop, 1001), "{report:?}");
                let then = outcome.report_of_scan(at as u32 + 1);
                assert_eq!(then.total(), lost, "{stop} {fate}, scan {}: {then:?}", at + 1);
            }
            assert_eq!(report.summary.confirmed.blocks, lost.0, "{report:?}");
        }
    }
}

/// By ptrace or by the signal: each has stopped, and nothing is missing.
#[test]
fn nothing_is_unseen_of_a_thousand_waiting_threads() {
    for stop in ["ptrace", "signal"] {
        for _ in 0..3 {
            let report = app(&["many", "keep"], &format!("stop={stop}")).run().ok().report();
            let unseen: Vec<_> = report.scans.iter().flat_map(|scan| &scan.unseen).collect();
            assert!(unseen.is_empty(), "{stop}: {unseen:?}");
        }
    }
}

/// Every stack of theirs is looked at: without that class of roots each of them has lost its block.
#[test]
fn a_thousand_stacks_are_read() {
    let report = app(&["many", "keep"], "use_stacks=0").run().ok().report();
    assert_eq!(report.total_through("make"), (1000, 1_337_000), "{report:?}");
}

#[test]
fn five_thousand_threads_that_come_and_go_during_scans() {
    for stop in ["ptrace", "signal"] {
        for (fate, lost) in [("keep", (0, 0)), ("lose", (1, 1337))] {
            let outcome = app(&["created", fate], &format!("stop={stop}")).run();
            let created: u32 = outcome.ok().stdout.trim().parse().unwrap();
            assert!(created >= 5000, "{outcome:?}");
            let report = outcome.report();
            assert_eq!((report.scans.len(), report.total()), (21, lost), "{stop} {fate}: {report:?}");
            assert!(report.scans[..20].iter().all(|scan| scan.via == stop && scan.threads >= 3), "{report:?}");
            // Nor was anything else called a leak on the way.
            for scan in 1..=20 {
                let then = outcome.report_of_scan(scan);
                assert_eq!(then.total(), lost, "{stop} {fate}, scan {scan}: {then:?}");
            }
            outcome.expect_none_freed();
        }
    }
}

#[test]
fn a_stack_of_a_hundred_thousand_frames() {
    for of in ["deep", "deep_thread"] {
        for place in ["outermost", "innermost"] {
            let run = |fate: &str, options: &str| app(&[of, fate, place], options).run();
            let kept = run("keep", "scan_at_exit=0");
            kept.expect_clean();
            assert_eq!(kept.report().triggers(), ["api", "api"]);
            run("keep", "scan_at_exit=0:use_stacks=0").expect_leaks(1, 1337);
            for (options, depth) in [("", 64), (":depth=64", 64), (":depth=10", 10)] {
                let lost = run("lose", &format!("scan_at_exit=0{options}"));
                lost.expect_leaks(1, 1337);
                // The innermost ones, as many as are recorded.
                let report = lost.report();
                let recorded = report.leaks[0].frames.iter().filter(|frame| !frame.inlined).count();
                assert_eq!(recorded, depth, "{of} {place}{options}: {report:?}");
                let functions = report.leaks[0].functions();
                assert_eq!(functions[..2], ["make", "put"], "{report:?}");
                let at = functions.iter().position(|name| *name == "innermost").expect("it has called the others");
                assert!(functions[at + 1..].iter().all(|name| *name == "recurse"), "{report:?}");
            }
        }
    }
}

/// Of those that found no room it is said that they did, and nothing else is wrong.
#[test]
fn more_lost_blocks_than_are_remembered_from_scan_to_scan() {
    const REMEMBERED: u64 = 1 << 20;
    const ALL: u64 = REMEMBERED + 1000;
    let outcome = program("full_tables.c").arg("blocks").options("interval=0").run();
    let told = |scan: u32| {
        let report = outcome.report_of_scan(scan);
        assert_eq!(report.total(), (ALL, ALL * 16), "scan {scan}: {report:?}");
        let unseen = report.last().unseen.iter().map(|unseen| (unseen.what.clone(), unseen.count));
        (report.summary.confirmed.blocks, report.summary.suspected.blocks, unseen.collect::<Vec<_>>())
    };
    outcome.ok();
    assert_eq!(told(1), (0, ALL, vec![("confirmation".into(), 1000)]));
    assert_eq!(told(2), (REMEMBERED, 1000, vec![("confirmation".into(), 1000)]));
    assert_eq!((told(3).0, told(3).1), (ALL, 0));
}

#[test]
fn more_stacks_than_there_are_numbers_for() {
    let outcome = program("full_tables.c").arg("stacks").options("interval=0").run();
    let report = outcome.ok().report();
    let [unseen] = &report.last().unseen[..] else { panic!("{report:?}") };
    let stacks = outcome.stat("stacks");
    assert_eq!(stacks, (1 << 21) - 1);
    // All that were asked for, but for the few of libc's start.
    let few = unseen.count + stacks - (1 << 21);
    assert!(unseen.what == "stack" && unseen.count >= 1 && few < 20, "{report:?}");
}
