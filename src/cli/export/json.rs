//! Reports as JSON; `docs/report.schema.json` describes it and a test holds the two together.
//!
//! Keys are only ever added: a reader ignores those that it does not know.

use crate::args::View;
use crate::misuse;
use crate::model::{Leak, Report, Scan, Stack};
use crate::select::select;
use crate::symbolize::{Symbolizer, Trouble};
use leakscan_report::{Kind, Stats, Status};
use serde::Serialize;
use std::collections::HashSet;

#[derive(Serialize)]
pub struct File {
    format: u32,
    pid: u32,
    exe: String,
    cmdline: String,
    /// Seconds since 1970.
    started: u64,
    version: String,
    scans: Vec<ScanRow>,
    leaks: Vec<LeakRow>,
    /// Blocks freed the wrong way.
    misuses: Vec<MisuseRow>,
    summary: Summary,
}

#[derive(Serialize)]
struct ScanRow {
    scan: u32,
    time: u64,
    trigger: &'static str,
    /// How threads were stopped.
    via: String,
    pause_us: u64,
    scan_ms: u64,
    live_blocks: u64,
    live_bytes: u64,
    threads: u64,
    /// Of our own tables, mapped.
    own_bytes: u64,
    unseen: Vec<UnseenRow>,
}

#[derive(Serialize)]
struct UnseenRow {
    what: String,
    count: u64,
    why: String,
}

#[derive(Serialize)]
struct LeakRow {
    kind: &'static str,
    status: &'static str,
    blocks: u64,
    bytes: u64,
    exact: bool,
    error_blocks: u64,
    error_bytes: u64,
    first_scan: u32,
    last_scan: u32,
    delta_blocks: i64,
    delta_bytes: i64,
    indirect_blocks: u64,
    indirect_bytes: u64,
    frames: Vec<FrameRow>,
}

#[derive(Serialize)]
struct MisuseRow {
    what: &'static str,
    made_by: String,
    freed_by: String,
    blocks: u64,
    made: Vec<FrameRow>,
    freed: Vec<FrameRow>,
}

#[derive(Serialize)]
struct FrameRow {
    /// In hexadecimal, as it was in the process.
    address: String,
    module: Option<String>,
    offset: String,
    build_id: Option<String>,
    function: Option<String>,
    file: Option<String>,
    line: Option<u32>,
    column: Option<u32>,
    inlined: bool,
}

#[derive(Serialize, Default)]
struct Totals {
    stacks: usize,
    blocks: u64,
    bytes: u64,
}

/// What holds for all leaks of the scan, whatever the selection left out.
#[derive(Serialize)]
struct Summary {
    /// The scan that `leaks` is from; null where no scan is whole.
    scan: Option<u32>,
    direct: Totals,
    indirect: Totals,
    possible: Totals,
    /// Direct and indirect.
    confirmed: Totals,
    suspected: Totals,
    leaks_left_out: usize,
    /// The self-check: blocks of earlier reports that the program freed afterwards.
    confirmed_freed: u64,
    suspected_freed: u64,
    /// Scan blocks that could not be read, as `line N: cause`.
    damaged: Vec<String>,
    /// Modules whose frames lack names or lines.
    modules_without_debug_info: Vec<Lacking>,
}

#[derive(Serialize)]
struct Lacking {
    module: String,
    build_id: Option<String>,
    why: String,
}

pub fn file(report: &Report, number: Option<u32>, view: &View, symbolizer: &mut Symbolizer) -> File {
    let scan = report.scan(number);
    let selection = scan.map(|scan| select(scan, view));
    let (shown, left_out) = selection.map_or((Vec::new(), 0), |selection| (selection.shown, selection.left_out));
    let last = scan.map_or(0, |scan| scan.number);
    let leaks = shown.into_iter().map(|leak| row(report, leak, last, symbolizer)).collect();
    let misuses = scan.map_or_else(Vec::new, |scan| misuse::all(report, scan, symbolizer));
    let misuses = misuses.into_iter().map(|told| MisuseRow {
        what: told.misuse.what.word(),
        made_by: told.made_by.to_owned(),
        freed_by: told.freed_by.to_owned(),
        blocks: told.misuse.blocks,
        made: frames(report, told.misuse.made, symbolizer),
        freed: frames(report, told.misuse.freed, symbolizer),
    });
    let misuses = misuses.collect();
    File {
        format: report.format,
        pid: report.process.pid,
        exe: report.process.exe.clone(),
        cmdline: report.process.args.clone(),
        started: report.process.start,
        version: report.process.version.clone(),
        scans: report.scans.iter().map(scan_row).collect(),
        leaks,
        misuses,
        summary: summary(report, scan, left_out, symbolizer),
    }
}

fn scan_row(scan: &Scan) -> ScanRow {
    let unseen = scan.unseen.iter();
    ScanRow {
        scan: scan.number,
        time: scan.time,
        trigger: scan.trigger.word(),
        via: scan.via.clone(),
        pause_us: scan.stats.pause_us,
        scan_ms: scan.stats.scan_ms,
        live_blocks: scan.stats.live_blocks,
        live_bytes: scan.stats.live_bytes,
        threads: scan.stats.threads,
        own_bytes: scan.stats.own_bytes,
        unseen: unseen
            .map(|row| UnseenRow { what: row.what.clone(), count: row.count, why: row.why.clone() })
            .collect(),
    }
}

fn frames(report: &Report, stack: Stack, symbolizer: &mut Symbolizer) -> Vec<FrameRow> {
    let mut frames = Vec::new();
    for &frame in report.frames(stack) {
        let module = frame.module.and_then(|index| report.modules.get(index));
        let address = module.map_or(frame.offset, |module| module.bias.wrapping_add(frame.offset));
        for symbol in symbolizer.frame(report, frame).iter() {
            frames.push(FrameRow {
                address: format!("0x{address:x}"),
                module: module.map(|module| module.path.clone()),
                offset: format!("0x{:x}", frame.offset),
                build_id: module.and_then(|module| module.build_id.clone()),
                function: symbol.function.clone(),
                file: symbol.file.clone(),
                line: symbol.line,
                column: symbol.column,
                inlined: symbol.inlined,
            });
        }
    }
    frames
}

fn row(report: &Report, leak: &Leak, last_scan: u32, symbolizer: &mut Symbolizer) -> LeakRow {
    LeakRow {
        kind: leak.kind.word(),
        status: leak.status.word(),
        blocks: leak.blocks,
        bytes: leak.bytes,
        exact: leak.exact,
        error_blocks: leak.error_blocks,
        error_bytes: leak.error_bytes,
        first_scan: leak.first_scan,
        last_scan,
        delta_blocks: leak.delta.blocks,
        delta_bytes: leak.delta.bytes,
        indirect_blocks: leak.indirect_blocks,
        indirect_bytes: leak.indirect_bytes,
        frames: frames(report, leak.stack, symbolizer),
    }
}

/// The stacks of the leaks, and the exact figures, which the rows estimate where stacks were sampled.
fn totals<'a>(leaks: impl Iterator<Item = &'a Leak>, (blocks, bytes): (u64, u64)) -> Totals {
    Totals { stacks: leaks.map(|leak| leak.stack).collect::<HashSet<_>>().len(), blocks, bytes }
}

fn summary(report: &Report, scan: Option<&Scan>, left_out: usize, symbolizer: &Symbolizer) -> Summary {
    let leaks = || scan.map_or(&[][..], |scan| scan.leaks.as_slice()).iter();
    let stats = scan.map_or_else(Stats::default, |scan| scan.stats);
    let of_kind = |kind, exact| totals(leaks().filter(|leak| leak.kind == kind), exact);
    let of_status = |status| {
        let leaks = leaks().filter(|leak| leak.status == status && leak.kind != Kind::Possible);
        totals(leaks, scan.map_or((0, 0), |scan| scan.leaked(status)))
    };
    let lacking = |(index, trouble): (usize, Trouble)| {
        let module = report.modules.get(index)?;
        Some(Lacking { module: module.path.clone(), build_id: module.build_id.clone(), why: trouble.to_string() })
    };
    Summary {
        scan: scan.map(|scan| scan.number),
        direct: of_kind(Kind::Direct, (stats.direct_blocks, stats.direct_bytes)),
        indirect: of_kind(Kind::Indirect, (stats.indirect_blocks, stats.indirect_bytes)),
        possible: of_kind(Kind::Possible, (stats.possible_blocks, stats.possible_bytes)),
        confirmed: of_status(Status::Confirmed),
        suspected: of_status(Status::Suspected),
        leaks_left_out: left_out,
        confirmed_freed: scan.map_or(0, |scan| scan.check.confirmed_freed),
        suspected_freed: scan.map_or(0, |scan| scan.check.suspected_freed),
        damaged: report.faults.iter().map(ToString::to_string).collect(),
        modules_without_debug_info: symbolizer.troubles().into_iter().filter_map(lacking).collect(),
    }
}
