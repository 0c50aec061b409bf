//! The text as a user sees it.

use crate::args::{Format, View};
use crate::testing::{Maker, frame, leak, module, shown, view};
use leakscan_report::Kind::{Direct, Indirect, Possible};
use leakscan_report::Status::{Confirmed, Suspected};
use leakscan_report::{Check, Leak, Trigger};

fn two_scans() -> Maker {
    Maker::new("-")
        .scan(1, Trigger::Interval, |write| {
            module("/usr/bin/server", &[0xab], write);
            write.stack(1, [frame(0x11), frame(0x22)].into_iter());
            write.stack(2, [frame(0x33)].into_iter());
            write.leak(&leak(Direct, Suspected, 1, 300, 9600));
        })
        .scan(2, Trigger::Exit, |write| {
            write.leak(&leak(Direct, Suspected, 2, 7, 1_000_000));
            write.leak(&Leak { indirect_blocks: 500, indirect_bytes: 8000, ..leak(Direct, Confirmed, 1, 500, 16_000) });
            write.leak(&leak(Indirect, Confirmed, 2, 500, 8000));
            write.check(&Check { confirmed_freed: 0, suspected_freed: 3 });
            write.unseen("thread", 1, b"tid 4243 (bg) did not stop; its stack was taken whole");
        })
}

#[test]
fn the_whole_text() {
    let text = shown(&two_scans().report(), None, &view(Format::Text));
    let expected = "\
leakscan report: server --port 80  (pid 4242)
  2 scans, last by exit, 2026-11-26 00:42:00 UTC; pause 0.8 ms, scan 14 ms
  scanned 81,203 live blocks, 14.2 MiB, 0 bytes of roots, 4 threads
  leaked: 1,000 blocks, 23.4 KiB in 2 stacks (confirmed)
  suspected: 7 blocks, 976.6 KiB in 1 stack (the next scan will tell)

#1  direct  confirmed   500 blocks   15.6 KiB   +200 since scan 1   keeps 500 blocks more, 7.8 KiB
      server+0x11
      server+0x22

#2  direct  suspected   7 blocks   976.6 KiB   new since scan 2
      server+0x33

1 indirect leak not shown: 500 blocks, 7.8 KiB (--kind indirect or --all shows them)

self-check:
  3 blocks suspected in earlier scans, but freed later

not seen:
  1  thread  tid 4243 (bg) did not stop; its stack was taken whole

without file and line:
  /usr/bin/server: the file cannot be read: no such file or directory
";
    assert_eq!(text, expected);
}

#[test]
fn an_estimate_is_shown_with_its_error() {
    let report = Maker::new("-").scan(1, Trigger::Exit, |write| {
        let estimate = |stack, error_blocks, error_bytes| Leak {
            exact: false,
            error_blocks,
            error_bytes,
            ..leak(Direct, Confirmed, stack, 12_345, 3 << 20)
        };
        write.leak(&estimate(1, 100, 1 << 20));
        write.leak(&estimate(2, 0, 0));
    });
    let text = shown(&report.report(), None, &view(Format::Text));
    assert!(text.contains("   about 12,345 blocks ± 196   3.0 MiB ± 2.0 MiB\n"), "{text}");
    assert!(text.contains("   about 12,345 blocks   3.0 MiB\n"), "{text}");
}

#[test]
fn what_is_shown_can_be_chosen() {
    let report = two_scans().report();
    let text = |view: View| shown(&report, None, &view);
    let one = text(View { top: Some(1), ..view(Format::Text) });
    assert!(one.contains("#1") && !one.contains("#2") && one.contains("1 more leak not shown"), "{one}");
    let all = text(View { all: true, ..view(Format::Text) });
    assert!(all.contains("#3") && !all.contains("not shown"), "{all}");
    let large = text(View { min_bytes: 100_000, ..view(Format::Text) });
    assert!(large.contains("#1  direct  suspected") && !large.contains("#2"), "{large}");
    let indirect = text(View { kind: vec!["indirect".into()], ..view(Format::Text) });
    assert!(
        indirect.contains("#1  indirect  confirmed") && indirect.contains("2 direct leaks not shown"),
        "{indirect}"
    );
    let first = shown(&report, Some(1), &view(Format::Text));
    assert!(first.contains("this is scan 1, by interval") && first.contains("nothing is confirmed yet"), "{first}");
    assert!(!first.contains("not seen"), "{first}");
}

#[test]
fn no_leaks_is_said_plainly_and_possible_ones_do_not_count() {
    let maker = Maker::new("-").scan(1, Trigger::Exit, |write| write.leak(&leak(Possible, Confirmed, 0, 1, 8)));
    let report = maker.report();
    assert!(!report.has_confirmed_leaks());
    let text = shown(&report, None, &view(Format::Text));
    assert!(text.contains("  no leaks\n") && text.contains("scanned 81,203 live blocks"), "{text}");
    assert!(text.contains("1 possible leak not shown"), "{text}");
}

#[test]
fn names_from_a_report_cannot_drive_the_terminal() {
    let maker = Maker::new("-").scan(1, Trigger::Exit, |write| {
        module("/tmp/\x1b[31mevil\n", &[], write);
        write.stack(1, [frame(1)].into_iter());
        write.leak(&leak(Direct, Confirmed, 1, 1, 8));
        write.unseen("\x1b]0;x", 1, b"a\x07b");
    });
    let text = shown(&maker.report(), None, &view(Format::Text));
    assert!(!text.contains(['\x1b', '\x07']) && text.contains("evil"), "{text}");
}
