//! A report file as values of our own: scans, folded leaks with their history, stacks over one list of modules.
//!
//! Every command that shows a report gets it from [`load`]. Whatever the bytes are, it gives a [`Report`] or an error that
//! names file, line and cause. Damaged blocks end up in [`Report::faults`]; whole ones before and behind them are kept.

use leakscan_report::read::{self, Record, unescape};
use leakscan_report::{Check, Kind, Stats, Status, Trigger, Wrong};
use std::collections::HashMap;
use std::path::{Path, PathBuf};

/// One report file.
#[derive(Debug)]
pub struct Report {
    pub path: PathBuf,
    pub format: u32,
    pub process: Process,
    /// In the order of the file.
    pub scans: Vec<Scan>,
    /// Every distinct module that a whole block names.
    pub modules: Vec<Module>,
    pub stacks: Vec<Vec<Frame>>,
    /// Blocks that could not be used, as `line N: cause`.
    pub faults: Vec<read::Error>,
}

#[derive(Debug)]
pub struct Process {
    pub pid: u32,
    pub start: u64,
    pub version: String,
    pub exe: String,
    pub args: String,
}

/// One whole block.
#[derive(Debug)]
pub struct Scan {
    pub number: u32,
    pub trigger: Trigger,
    pub time: u64,
    /// How the threads were stopped.
    pub via: String,
    pub stats: Stats,
    pub check: Check,
    pub unseen: Vec<Unseen>,
    pub leaks: Vec<Leak>,
    pub misuses: Vec<Misuse>,
}

/// Blocks that were freed the same wrong way.
#[derive(Debug)]
pub struct Misuse {
    pub what: Wrong,
    pub made_by: String,
    pub freed_by: String,
    pub made: Stack,
    pub freed: Stack,
    pub blocks: u64,
}

#[derive(Debug)]
pub struct Unseen {
    pub what: String,
    pub count: u64,
    pub why: String,
}

/// A loaded file. The same file at another address is another module.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Module {
    pub path: String,
    /// Lower-case hexadecimal.
    pub build_id: Option<String>,
    pub bias: u64,
}

/// A frame whose module counts in [`Report::modules`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Frame {
    pub module: Option<usize>,
    pub offset: u64,
    pub exact: bool,
}

/// Where a leak was allocated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Stack {
    /// Counts in [`Report::stacks`].
    Known(usize),
    /// None was recorded.
    None,
    /// Its number is used, but the block that defined it is damaged.
    Lost(u32),
}

/// Blocks alike in kind, status and stack, with their history over the scans of the file up to this one.
#[derive(Clone, Debug)]
pub struct Leak {
    pub kind: Kind,
    pub status: Status,
    pub stack: Stack,
    pub blocks: u64,
    pub bytes: u64,
    pub exact: bool,
    /// Standard errors of an estimate.
    pub error_blocks: u64,
    pub error_bytes: u64,
    pub indirect_blocks: u64,
    pub indirect_bytes: u64,
    /// The number of the first scan that has this kind and stack, in whatever status.
    pub first_scan: u32,
    /// Against the scan before; in the first scan, against nothing.
    pub delta: Change,
    /// Against the first scan of the file: of a confirmed leak's stack as a whole, since its blocks may be direct in one scan
    /// and indirect in the next, and suspected before they are confirmed.
    pub growth: Change,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Change {
    pub blocks: i64,
    pub bytes: i64,
}

impl Leak {
    /// What would come back if these blocks were freed with all that they keep.
    pub fn weight(&self) -> u64 {
        self.bytes.saturating_add(self.indirect_bytes)
    }
}

impl Report {
    /// The scan to show: the one asked for, or the last whole one.
    pub fn scan(&self, number: Option<u32>) -> Option<&Scan> {
        match number {
            Some(number) => self.scans.iter().rev().find(|scan| scan.number == number),
            None => self.scans.last(),
        }
    }

    /// Whether the last scan has confirmed leaks. Possible ones do not count: something points to them.
    pub fn has_confirmed_leaks(&self) -> bool {
        self.scans.last().is_some_and(Scan::has_confirmed_leaks)
    }

    /// The stack's frames, outermost last.
    pub fn frames(&self, stack: Stack) -> &[Frame] {
        match stack {
            Stack::Known(index) => self.stacks.get(index).map_or(&[], Vec::as_slice),
            Stack::None | Stack::Lost(_) => &[],
        }
    }
}

impl Scan {
    pub fn has_confirmed_leaks(&self) -> bool {
        self.stats.confirmed_blocks > 0
    }

    /// Blocks and bytes of that status, direct and indirect: exact, also where the rows are estimates.
    pub fn leaked(&self, status: Status) -> (u64, u64) {
        let stats = &self.stats;
        let confirmed = (stats.confirmed_blocks, stats.confirmed_bytes);
        match status {
            Status::Confirmed => confirmed,
            Status::Suspected => (
                (stats.direct_blocks.saturating_add(stats.indirect_blocks)).saturating_sub(confirmed.0),
                (stats.direct_bytes.saturating_add(stats.indirect_bytes)).saturating_sub(confirmed.1),
            ),
        }
    }
}

/// Reads and interprets one file.
///
/// # Errors
/// `file: cause` or `file: line N: cause`, where there is no report to show.
pub fn load(path: &Path) -> Result<Report, String> {
    let name = path.display();
    let bytes = if path == Path::new("-") {
        let mut bytes = Vec::new();
        std::io::Read::read_to_end(&mut std::io::stdin().lock(), &mut bytes).map(|_| bytes)
    } else if path.is_dir() {
        return Err(format!("{name}: is a directory, not a report; reports are files like /tmp/leakscan.PID"));
    } else {
        std::fs::read(path)
    };
    let bytes = bytes.map_err(|error| format!("{name}: {}", crate::sys::plain(&error)))?;
    if bytes.is_empty() {
        return Err(format!("{name}: line 1: the file is empty: no report was written yet"));
    }
    parse(path, &bytes).map_err(|error| format!("{name}: {error}"))
}

/// Interprets the bytes of a report file.
///
/// # Errors
/// Where the header cannot be read.
pub fn parse(path: &Path, bytes: &[u8]) -> Result<Report, read::Error> {
    let source = read::Report::parse(bytes)?;
    let process = Process {
        pid: source.process.pid,
        start: source.process.start,
        version: text(source.process.version),
        exe: text(source.process.exe),
        args: text(source.process.args),
    };
    let mut report = Report {
        path: path.into(),
        format: source.format,
        process,
        scans: Vec::new(),
        modules: Vec::new(),
        stacks: Vec::new(),
        faults: Vec::new(),
    };
    let mut builder = Builder::default();
    for block in source.blocks() {
        let scan = block.and_then(|block| builder.scan(&mut report, &block));
        match scan {
            Ok(scan) => report.scans.push(scan),
            Err(fault) => report.faults.push(fault),
        }
    }
    Ok(report)
}

/// What is carried from block to block.
#[derive(Default)]
struct Builder {
    modules: HashMap<Module, usize>,
    /// The file's stack number -> place in [`Report::stacks`].
    stacks: HashMap<u32, usize>,
    history: HashMap<(Kind, u32), History>,
    /// What a stack has lost in the file's first scan.
    at_first: HashMap<u32, Totals>,
    /// How many scans are in `history`.
    scans: usize,
}

/// What one kind and stack held in earlier scans, all statuses together.
#[derive(Clone, Copy)]
struct History {
    first_number: u32,
    last: Totals,
    last_scan: usize,
}

#[derive(Clone, Copy, Default)]
struct Totals {
    blocks: u64,
    bytes: u64,
}

impl Builder {
    /// Either all of the block goes into the report and the history or, where a line is wrong, nothing of it.
    fn scan(&mut self, report: &mut Report, block: &read::Block<'_>) -> Result<Scan, read::Error> {
        let records: Vec<Record<'_>> = block.records().collect::<Result<_, _>>()?;
        let mut scan = Scan {
            number: block.number,
            trigger: block.trigger,
            time: block.time,
            via: String::new(),
            stats: Stats::default(),
            check: Check::default(),
            unseen: Vec::new(),
            leaks: Vec::new(),
            misuses: Vec::new(),
        };
        let mut local = HashMap::new();
        for record in &records {
            if let Record::Module(module) = record {
                local.insert(module.id, self.module(report, module));
            }
        }
        let mut rows = Vec::new();
        for record in records {
            match record {
                Record::Module(_) => {}
                Record::Stack { id, frames } => {
                    let frames = frames.flatten().map(|frame| absolute(&frame, &local)).collect();
                    self.stacks.insert(id, report.stacks.len());
                    report.stacks.push(frames);
                }
                Record::Stats { via, stats } => (scan.via, scan.stats) = (text(via), stats),
                Record::Check(check) => scan.check = check,
                Record::Leak(leak) => rows.push(leak),
                Record::Misuse(misuse) => scan.misuses.push(Misuse {
                    what: misuse.what,
                    made_by: text(misuse.made_by),
                    freed_by: text(misuse.freed_by),
                    made: self.stack(misuse.made),
                    freed: self.stack(misuse.freed),
                    blocks: misuse.blocks,
                }),
                Record::Unseen { what, count, why } => {
                    scan.unseen.push(Unseen { what: text(what), count, why: text(why) });
                }
            }
        }
        scan.leaks = self.leaks(block.number, &rows);
        Ok(scan)
    }

    fn module(&mut self, report: &mut Report, module: &leakscan_report::Module<'_>) -> usize {
        let build_id = (!module.build_id.is_empty()).then(|| text(module.build_id));
        let module = Module { path: text(module.path), build_id, bias: module.bias };
        *self.modules.entry(module).or_insert_with_key(|module| {
            report.modules.push(module.clone());
            report.modules.len() - 1
        })
    }

    fn stack(&self, id: u32) -> Stack {
        match id {
            0 => Stack::None,
            id => self.stacks.get(&id).map_or(Stack::Lost(id), |&index| Stack::Known(index)),
        }
    }

    fn leaks(&mut self, number: u32, rows: &[leakscan_report::Leak]) -> Vec<Leak> {
        let mut now: HashMap<(Kind, u32), (Totals, Totals)> = HashMap::new();
        for row in rows {
            let (all, suspected) = now.entry((row.kind, row.stack)).or_default();
            all.add(row);
            if row.status == Status::Suspected {
                suspected.add(row);
            }
        }
        let mut lost: HashMap<u32, Totals> = HashMap::new();
        for row in rows.iter().filter(|row| row.kind != Kind::Possible) {
            lost.entry(row.stack).or_default().add(row);
        }
        let this = self.scans;
        let leaks = rows.iter().map(|row| {
            let key = (row.kind, row.stack);
            let (all, suspected) = now[&key];
            let past = self.history.get(&key);
            let before = past.filter(|past| past.last_scan + 1 == this).map_or(Totals::default(), |past| past.last);
            // A suspected block is one that the scan before did not have, so what is new is its row's, and the
            // confirmed row's change is what became of the blocks that were there.
            let fresh = Totals::of(row).less(Totals::default());
            let (delta, growth) = match row.status {
                Status::Suspected => (fresh, fresh),
                Status::Confirmed => {
                    let of = |totals: &HashMap<u32, Totals>| totals.get(&row.stack).copied().unwrap_or_default();
                    (all.minus(suspected).less(before), of(&lost).less(of(&self.at_first)))
                }
            };
            let growth = if this == 0 { Change::default() } else { growth };
            let stack = self.stack(row.stack);
            Leak {
                kind: row.kind,
                status: row.status,
                stack,
                blocks: row.blocks,
                bytes: row.bytes,
                exact: row.exact,
                error_blocks: row.error_blocks,
                error_bytes: row.error_bytes,
                indirect_blocks: row.indirect_blocks,
                indirect_bytes: row.indirect_bytes,
                first_scan: past.map_or(number, |past| past.first_number),
                delta,
                growth,
            }
        });
        let leaks = leaks.collect();
        for (key, (all, _)) in now {
            let fresh = History { first_number: number, last: all, last_scan: this };
            let past = self.history.entry(key).or_insert(fresh);
            (past.last, past.last_scan) = (all, this);
        }
        if this == 0 {
            self.at_first = lost;
        }
        self.scans += 1;
        leaks
    }
}

impl Totals {
    fn of(row: &leakscan_report::Leak) -> Self {
        Self { blocks: row.blocks, bytes: row.bytes }
    }
    fn add(&mut self, row: &leakscan_report::Leak) {
        self.blocks = self.blocks.saturating_add(row.blocks);
        self.bytes = self.bytes.saturating_add(row.bytes);
    }
    fn minus(self, other: Self) -> Self {
        Self { blocks: self.blocks.saturating_sub(other.blocks), bytes: self.bytes.saturating_sub(other.bytes) }
    }
    fn less(self, before: Self) -> Change {
        Change { blocks: difference(self.blocks, before.blocks), bytes: difference(self.bytes, before.bytes) }
    }
}

fn difference(now: u64, before: u64) -> i64 {
    i64::try_from(i128::from(now) - i128::from(before)).unwrap_or(if now > before { i64::MAX } else { i64::MIN })
}

/// A module number that its block does not define leaves the offset without a module, as JIT code is.
fn absolute(frame: &leakscan_report::Frame, local: &HashMap<u32, usize>) -> Frame {
    let module = frame.module.and_then(|id| local.get(&id).copied());
    Frame { module, offset: frame.offset, exact: frame.exact }
}

fn text(field: &[u8]) -> String {
    String::from_utf8_lossy(&unescape(field).collect::<Vec<u8>>()).into_owned()
}

#[cfg(test)]
#[path = "model_tests.rs"]
mod tests;
