//! History of leaks over scans, and whatever can be wrong with a file.

use super::*;
use crate::args::Format;
use crate::testing::{Maker, frame, leak, module, shown, view};
use leakscan_report::Kind::{Direct, Indirect};
use leakscan_report::Status::{Confirmed, Suspected};
use proptest::prelude::*;

fn three_scans() -> Maker {
    Maker::new("-")
        .scan(1, Trigger::Interval, |write| {
            module("/usr/bin/server", &[0xab, 0xcd], write);
            write.stack(7, [frame(0x10), frame(0x20)].into_iter());
            write.leak(&leak(Direct, Suspected, 7, 2, 200));
        })
        .scan(2, Trigger::Interval, |write| {
            write.leak(&leak(Direct, Confirmed, 7, 2, 200));
            write.leak(&leak(Direct, Suspected, 7, 3, 300));
            write.leak(&leak(Indirect, Suspected, 8, 1, 10));
        })
        .scan(3, Trigger::Exit, |write| {
            write.leak(&leak(Direct, Confirmed, 7, 9, 900));
            write.leak(&leak(Indirect, Confirmed, 0, 1, 5));
        })
}

fn changes(scan: &Scan) -> Vec<(Kind, Status, u32, i64, i64)> {
    let row = |leak: &Leak| (leak.kind, leak.status, leak.first_scan, leak.delta.blocks, leak.growth.bytes);
    scan.leaks.iter().map(row).collect()
}

#[test]
fn changes_are_against_the_scan_before_and_the_first_and_add_up() {
    let report = three_scans().report();
    assert_eq!(changes(&report.scans[0]), [(Direct, Suspected, 1, 2, 0)]);
    let second = [(Direct, Confirmed, 1, 0, 300), (Direct, Suspected, 1, 3, 300), (Indirect, Suspected, 2, 1, 10)];
    assert_eq!(changes(&report.scans[1]), second);
    assert_eq!(changes(&report.scans[2]), [(Direct, Confirmed, 1, 4, 700), (Indirect, Confirmed, 3, 1, 5)]);
}

#[test]
fn modules_are_resolved_in_their_own_block() {
    let second = |write: &mut crate::testing::Records| {
        module("/lib/other.so", &[], write);
        write.stack(9, [frame(0x30)].into_iter());
        write.leak(&leak(Direct, Confirmed, 7, 1, 1));
        write.leak(&leak(Direct, Confirmed, 9, 1, 1));
        write.leak(&leak(Direct, Confirmed, 99, 1, 1));
    };
    let report = three_scans().scan(4, Trigger::Api, second).report();
    let leaks = &report.scans[3].leaks;
    let path = |leak: &Leak| report.modules[report.frames(leak.stack)[0].module.unwrap()].path.as_str();
    assert_eq!((path(&leaks[0]), path(&leaks[1])), ("/usr/bin/server", "/lib/other.so"));
    assert_eq!(leaks[2].stack, Stack::Lost(99));
    assert_eq!(report.modules[0].build_id.as_deref(), Some("abcd"));
}

#[test]
fn a_half_block_at_the_end_is_said_and_ignored() {
    let bytes = three_scans().bytes();
    let report = parse(Path::new("x"), &bytes[..bytes.len() - 20]).unwrap();
    assert_eq!(report.scans.len(), 2);
    assert_eq!(report.faults.len(), 1);
    let text = shown(&report, None, &view(Format::Text));
    assert!(text.contains("line 17: the scan block has no end line"), "{text}");
    assert!(text.contains("2 scans, last by interval"), "{text}");
}

#[test]
fn files_that_are_no_reports_are_named_with_line_and_cause() {
    let place = tempfile::tempdir().unwrap();
    let file = place.path().join("leakscan.1");
    let error = |bytes: &[u8]| {
        std::fs::write(&file, bytes).unwrap();
        load(&file).unwrap_err().replace(&*file.to_string_lossy(), "FILE")
    };
    assert_eq!(error(b"\x7fELF\x02\x01\x01\0\0\xff\n\xfe"), "FILE: line 1: this is not a leakscan report");
    assert!(error(b"").starts_with("FILE: line 1: the file is empty"));
    assert!(error(b"leakscan report 99\n").starts_with("FILE: line 1: format version 99"));
    assert_eq!(error(b"leakscan report 1\nprocess pid=1\n"), "FILE: line 3: the header is cut short");
    assert!(load(place.path()).unwrap_err().contains("is a directory"));
    assert!(load(&place.path().join("gone")).unwrap_err().ends_with("gone: no such file or directory"));
}

proptest! {
    #[test]
    fn cut_and_noisy_files_give_a_report_or_an_error_in_every_format(
        at in 0usize..1500, noise: Vec<u8>, cut in 0usize..1500,
    ) {
        let mut bytes = three_scans().bytes();
        let at = at.min(bytes.len());
        bytes.splice(at..(at + noise.len()).min(bytes.len()), noise);
        bytes.truncate(bytes.len().saturating_sub(cut / 4));
        if let Ok(report) = parse(Path::new("x"), &bytes) {
            for format in [Format::Text, Format::Json, Format::Folded] {
                shown(&report, None, &view(format));
            }
        }
    }

    #[test]
    fn numbers_of_any_size_do_not_overflow(blocks: [u64; 3], sizes: [u64; 3]) {
        let mut maker = Maker::new("-");
        for (number, (&blocks, &bytes)) in (1..).zip(blocks.iter().zip(&sizes)) {
            maker = maker.scan(number, Trigger::Exit, |write| {
                for status in [Confirmed, Suspected] {
                    write.leak(&leakscan_report::Leak { indirect_bytes: bytes, ..leak(Direct, status, 0, blocks, bytes) });
                }
            });
        }
        let report = maker.report();
        for format in [Format::Text, Format::Json, Format::Folded] {
            shown(&report, None, &view(format));
        }
    }
}
