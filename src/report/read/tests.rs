//! The reader against the writer, and against cut, damaged and random input.

use super::*;
use crate::write::{Sink, Writer};
use proptest::prelude::*;

impl Sink for Vec<u8> {
    fn write(&mut self, bytes: &[u8]) -> bool {
        self.extend_from_slice(bytes);
        true
    }
}

fn process() -> Process<'static> {
    Process {
        pid: 42,
        ppid: 1,
        start: 1_732_580_000,
        version: b"0.1.0",
        run: b"-",
        exe: b"/tmp/a b\\c\n",
        args: b"a b\xff\xe9",
        options: b"interval=60",
    }
}

fn leak(stack: u32, blocks: u64) -> Leak {
    let (indirect_blocks, indirect_bytes) = (blocks / 2, blocks);
    let (kind, status) = (Kind::Direct, Status::Confirmed);
    Leak {
        kind,
        status,
        stack,
        blocks,
        bytes: blocks * 13,
        exact: true,
        error_blocks: 0,
        error_bytes: 0,
        indirect_blocks,
        indirect_bytes,
    }
}

fn write_block(writer: &mut Writer<Vec<u8>>, number: u32, leaks: &[Leak], frames: &[Frame]) {
    writer.scan(number, Trigger::Signal, 7);
    writer.module(&Module {
        id: 0,
        start: 0x1000,
        end: 0x2000,
        bias: 0xf00,
        build_id: &[0xab, 0x01],
        path: b"/lib/x y",
    });
    writer.stack(9, frames.iter().copied());
    writer.stats("ptrace", &Stats { pause_us: 12, own_bytes: 99, ..Stats::default() });
    for leak in leaks {
        writer.leak(leak);
    }
    writer.check(&Check { confirmed_freed: 1, suspected_freed: 2 });
    writer.unseen("thread", 3, b"did not stop");
    writer.end(number);
}

fn sample() -> Vec<u8> {
    let mut writer = Writer::new(Vec::new());
    writer.header(&process());
    let frames =
        [Frame { module: Some(0), offset: 0x33, exact: false }, Frame { module: None, offset: 0x7f00, exact: true }];
    write_block(&mut writer, 1, &[leak(9, 2)], &frames);
    write_block(&mut writer, 2, &[leak(9, 4), leak(0, 1)], &frames);
    assert!(writer.finish());
    std::mem::take(writer.sink())
}

#[test]
fn what_was_written_is_read_back() {
    let bytes = sample();
    let report = Report::parse(&bytes).unwrap();
    assert_eq!(report.process.pid, 42);
    assert_eq!(unescape(report.process.exe).collect::<Vec<_>>(), process().exe);
    assert_eq!(unescape(report.process.args).collect::<Vec<_>>(), process().args);
    let blocks: Vec<_> = report.blocks().collect::<Result<_, _>>().unwrap();
    assert_eq!(blocks.iter().map(|block| block.number).collect::<Vec<_>>(), [1, 2]);
    let records: Vec<_> = blocks[1].records().collect::<Result<_, _>>().unwrap();
    assert_eq!(records.len(), 7);
    assert!(matches!(records[0], Record::Module(Module { bias: 0xf00, build_id: b"ab01", path: b"/lib/x\\x20y", .. })));
    let Record::Stack { id: 9, frames } = records[1] else { panic!("{records:?}") };
    let frames: Vec<_> = frames.map(Option::unwrap).collect();
    assert_eq!(frames[1], Frame { module: None, offset: 0x7f00, exact: true });
    let Record::Stats { via: b"ptrace", stats } = records[2] else { panic!("{records:?}") };
    assert_eq!((stats.pause_us, stats.own_bytes), (12, 99));
    assert!(matches!(records[3], Record::Leak(read) if read == leak(9, 4)));
    assert!(matches!(records[5], Record::Check(Check { confirmed_freed: 1, suspected_freed: 2 })));
    assert!(matches!(records[6], Record::Unseen { what: b"thread", count: 3, why: b"did\\x20not\\x20stop" }));
}

#[test]
fn a_newer_format_is_refused_with_its_number() {
    let bytes = b"leakscan report 7\nprocess pid=1\n";
    assert_eq!(Report::parse(bytes).unwrap_err(), Error { line: 1, cause: Cause::TooNew(7) });
}

#[test]
fn every_cut_gives_whole_blocks_and_at_most_one_error() {
    let bytes = sample();
    for cut in 0..bytes.len() {
        let Ok(report) = Report::parse(&bytes[..cut]) else { continue };
        let read: Vec<_> = report.blocks().collect();
        let whole = read.iter().filter(|block| block.is_ok()).count();
        assert!(read.len() - whole <= 1, "cut at {cut}: {read:?}");
        assert!(whole < 2, "cut at {cut} cannot hold the last block whole");
    }
}

#[test]
fn a_damaged_block_is_named_and_the_next_one_still_read() {
    let mut bytes = sample();
    let at = bytes.windows(9).position(|window| window == b"blocks=2 ").unwrap();
    bytes[at + 7] = b'3';
    let report = Report::parse(&bytes).unwrap();
    let read: Vec<_> = report.blocks().collect();
    assert!(matches!(read[0], Err(Error { cause: Cause::BlockDamaged, line: 12 })), "{read:?}");
    assert_eq!(read[1].as_ref().unwrap().number, 2);
}

#[test]
fn a_block_cut_by_a_later_block_is_named_and_the_later_one_read() {
    let bytes = sample();
    let text = String::from_utf8(bytes).unwrap();
    let text = text.replacen("end 1", "gone", 1);
    let report = Report::parse(text.as_bytes()).unwrap();
    let read: Vec<_> = report.blocks().collect();
    assert!(matches!(read[0], Err(Error { cause: Cause::BlockCut, line: 5 })), "{read:?}");
    assert_eq!(read[1].as_ref().unwrap().number, 2);
}

/// A sink that takes a number of bytes and then fails, as a full disk does.
struct Full(usize, Vec<u8>);

impl Sink for Full {
    fn write(&mut self, bytes: &[u8]) -> bool {
        let take = bytes.len().min(self.0);
        self.0 -= take;
        self.1.extend_from_slice(&bytes[..take]);
        take == bytes.len()
    }
}

#[test]
fn a_full_disk_never_gives_a_block_that_looks_whole() {
    let whole = sample().len();
    for room in 0..whole {
        let mut writer = Writer::new(Full(room, Vec::new()));
        writer.header(&process());
        writer.scan(1, Trigger::Exit, 7);
        for blocks in 0..200 {
            writer.leak(&leak(0, blocks));
        }
        writer.end(1);
        assert!(!writer.finish());
        let written = std::mem::take(&mut writer.sink().1);
        if let Ok(report) = Report::parse(&written) {
            assert!(report.blocks().all(|block| block.is_err()));
        }
    }
}

proptest! {
    #[test]
    fn any_bytes_give_a_value_or_an_error(bytes: Vec<u8>) {
        if let Ok(report) = Report::parse(&bytes) {
            report.blocks().count();
        }
    }

    #[test]
    fn noise_in_a_report_gives_values_or_errors(at in 0usize..900, noise: Vec<u8>) {
        let mut bytes = sample();
        let at = at.min(bytes.len());
        let end = (at + noise.len()).min(bytes.len());
        bytes.splice(at..end, noise);
        if let Ok(report) = Report::parse(&bytes) {
            for block in report.blocks().flatten() {
                block.records().count();
            }
        }
    }

    #[test]
    fn any_field_survives_escaping(exe: Vec<u8>) {
        let mut writer = Writer::new(Vec::new());
        writer.header(&Process { exe: &exe, ..process() });
        prop_assert!(writer.finish());
        let bytes = std::mem::take(writer.sink());
        let report = Report::parse(&bytes).unwrap();
        prop_assert_eq!(unescape(report.process.exe).collect::<Vec<_>>(), exe);
    }
}
