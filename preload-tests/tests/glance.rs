//! The last scan of a small program is a glance, where that shows that nothing is lost; where it does not, a scan.

use harness::{Outcome, Report, program};

fn end(place: &str, options: &str) -> Outcome {
    let outcome = program("glance.c").args(place.split(' ')).options(options).run_as_bare();
    assert_eq!(outcome.status.code(), Some(5), "{place}: {outcome:?}");
    outcome
}

fn ways(report: &Report) -> Vec<&str> {
    report.scans.iter().map(|scan| scan.via.as_str()).collect()
}

#[test]
fn registers_stack_data_and_thread_local_storage_are_enough() {
    let places = ["global", "zeroed", "local", "stack", "register"].map(|place| (place, ""));
    for (place, options) in places.into_iter().chain([("global", "allocator=bundled")]) {
        let report = end(place, options).report();
        assert_eq!((ways(&report), report.total()), (vec!["glance"], (0, 0)), "{place} {options}: {report:?}");
        let scan = &report.scans[0];
        assert_eq!((scan.live_blocks, scan.live_bytes, scan.threads), (2, 1353, 1), "{place}: {report:?}");
        assert!(scan.unseen.is_empty(), "{report:?}");
    }
}

#[test]
fn no_more_is_read_than_it_takes_to_reach_all() {
    let [stack, global] = ["stack", "global"].map(|place| end(place, "").stat("root_bytes"));
    assert!(stack > 0 && stack * 2 < global, "{stack} {global}");
}

#[test]
fn a_lost_block_is_found_by_the_scan_that_follows() {
    for place in ["global", "zeroed", "local", "stack", "register", "mapping", "middle", "tag", "packed"] {
        let report = end(&format!("{place} lose"), "").report();
        assert_eq!((ways(&report), report.total()), (vec!["alone"], (2, 1353)), "{place}: {report:?}");
        assert_eq!(report.scans[0].live_blocks, 2, "{place}: {report:?}");
    }
}

#[test]
fn what_only_a_scan_reads_keeps_blocks_all_the_same() {
    for place in ["mapping", "middle", "tag", "packed"] {
        let report = end(place, "").report();
        assert_eq!((ways(&report), report.total()), (vec!["alone"], (0, 0)), "{place}: {report:?}");
    }
}

#[test]
fn roots_that_are_switched_off_are_not_glanced_at() {
    for (place, option) in
        [("global", "use_globals=0"), ("local", "use_tls=0"), ("stack", "use_stacks=0"), ("stack", "use_registers=0")]
    {
        let report = end(place, option).report();
        let lost = if option == "use_registers=0" { (0, 0) } else { (2, 1353) };
        assert_eq!((ways(&report), report.total()), (vec!["alone"], lost), "{place}, {option}: {report:?}");
    }
}

/// The program would end by a fault, had it looked itself.
#[test]
fn a_page_that_cannot_be_read_is_left_to_the_scan() {
    for (place, options) in [("closed", ""), ("closed_small", ""), ("closed_small", "allocator=bundled")] {
        let report = end(place, options).report();
        assert_eq!((ways(&report), report.total()), (vec!["alone"], (0, 0)), "{place} {options}: {report:?}");
    }
}

/// Nor would it have come through where a block's header or end is closed, or the header says too much.
#[test]
fn headers_that_cannot_be_trusted_are_left_to_the_scan() {
    // Over the bundled heap the size that was asked for stands in a block's end.
    for (place, options) in [
        ("header", ""),
        ("overrun", ""),
        ("empty", ""),
        ("end", "allocator=bundled"),
        ("overrun_mapped", "allocator=bundled"),
    ] {
        let report = end(place, options).report();
        assert_eq!((ways(&report), report.total()), (vec!["alone"], (0, 0)), "{place}: {report:?}");
    }
}

/// The kernel ends by SIGXFSZ whoever writes beyond the limit: a child, not the program.
#[test]
fn a_limit_on_files_does_not_end_the_program() {
    for words in [&["limit"][..], &["limit", "lose"]] {
        let outcome = program("glance.c").args(words).run();
        assert_eq!(outcome.status.code(), Some(5), "{outcome:?}");
        assert!(outcome.stderr.contains("the file would be too large"), "{outcome:?}");
    }
}

/// What the glance has noted reaches the child that is made after all.
#[test]
fn a_scan_after_a_glance_goes_on_with_its_report() {
    let report = end("abort lose", "").report();
    assert_eq!((ways(&report), report.total()), (vec!["glance", "alone"], (2, 1353)), "{report:?}");
    let report = end("abort", "").report();
    assert_eq!((ways(&report), report.total()), (vec!["glance", "alone"], (0, 0)), "{report:?}");
}
