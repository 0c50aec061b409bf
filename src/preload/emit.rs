//! Verdicts to the report: one whole block appended, or nothing.

use crate::child::{Step, Stopped};
use crate::ledger::Shared;
use crate::modules::{self, Module};
use crate::settings::{self, Settings};
use crate::snapshot::Job;
use crate::state::{BYPASSED, PRELOADED_BEFORE, PYMALLOC, TRACKER, UNWINDER};
use crate::{bundled, check, misuse, own, report_file};
use core::sync::atomic::Ordering::Relaxed;
use leakscan_engine::StackId;
use leakscan_engine::arena::{self, List, Zeroed};
use leakscan_engine::record::frames::Node;
use leakscan_engine::scan::fold::{Fold, Folds};
use leakscan_engine::sys::{self, Errno, Fd};
use leakscan_report::write::{Sink, Writer};
use leakscan_report::{Check, Frame, Kind, Leak, Process, Stats, Status, Trigger};

/// What a scan has found, beside the folds.
pub struct Findings {
    pub stats: Stats,
    pub check: Check,
    pub unseen: Unseen,
    pub begun_ns: u64,
    /// Of CPU time that the process had used before.
    pub cpu_ns: u64,
}

impl Findings {
    pub fn new(job: &Job, begun_ns: u64) -> Self {
        let stopped = job.crew.found().iter().filter(|thread| thread.state == crate::stop::State::Stopped).count();
        let threads = job.crew.found().iter().filter(|thread| thread.state != crate::stop::State::Gone).count();
        let stats = Stats {
            stop_us: job.stop_us,
            threads: threads as u64 + 1,
            threads_stopped: stopped as u64 + 1,
            ..Stats::default()
        };
        Self { stats, check: Check::default(), unseen: Unseen::default(), begun_ns, cpu_ns: 0 }
    }
}

/// What could not be seen, in the order in which it was found out.
#[derive(Default)]
pub struct Unseen {
    items: List<Item>,
}

#[derive(Clone, Copy)]
struct Item {
    what: [u8; 24],
    why: [u8; 160],
    count: u64,
}

#[allow(unsafe_code)]
// SAFETY: integers are valid when zero.
unsafe impl Zeroed for Item {}

impl Unseen {
    /// Adds a line, if there is anything to count.
    pub fn add_count(&mut self, what: &str, count: usize, why: &[u8]) {
        if count == 0 {
            return;
        }
        let mut item = Item { what: [0; 24], why: [0; 160], count: count as u64 };
        copy(&mut item.what, what.as_bytes());
        copy(&mut item.why, why);
        let _ = self.items.push(item);
    }

    /// The same with a reason of two parts.
    pub fn add_named(&mut self, what: &str, count: usize, name: &[u8], why: &[u8]) {
        let mut text = [0u8; 160];
        let used = copy(&mut text, name);
        let used = used + copy(&mut text[used..], why);
        self.add_count(what, count, &text[..used]);
    }

    /// Adds a thread by its number.
    pub fn add_thread(&mut self, tid: u32, why: &[u8]) {
        let mut name = [0u8; 32];
        let mut used = 0;
        for part in [b"tid ", sys::decimal(u64::from(tid), &mut [0; 20]), b" "] {
            used += copy(&mut name[used..], part);
        }
        self.add_named("thread", 1, &name[..used], why);
    }
}

fn copy(to: &mut [u8], from: &[u8]) -> usize {
    let len = from.len().min(to.len());
    to[..len].copy_from_slice(&from[..len]);
    len
}

fn text(bytes: &[u8]) -> &[u8] {
    bytes.split(|&byte| byte == 0).next().unwrap_or(&[])
}

/// The open file as a sink; keeps the error that stopped it.
struct Out {
    file: Fd,
    error: Option<Errno>,
}

impl Sink for Out {
    fn write(&mut self, bytes: &[u8]) -> bool {
        match self.file.write_all(bytes) {
            Ok(()) => true,
            Err(error) => {
                self.error = Some(error);
                false
            }
        }
    }
}

/// Writes the block. A process that somebody else's program started, that was never scanned before and ends without a leak,
/// leaves no file.
pub fn write(
    job: &Job,
    settings: &Settings,
    shared: &Shared,
    mut found: Findings,
    folds: Folds,
    loaded: &[Module],
) -> Result<(), Stopped> {
    let ledger = shared.ledger;
    let leaks = found.stats.direct_blocks + found.stats.indirect_blocks;
    let freed = found.check.confirmed_freed + found.check.suspected_freed;
    if job.trigger.is_end()
        && ledger.scan.load(Relaxed) == 0
        && leaks + freed == 0
        && misuse::all().next().is_none()
        && (job.trigger == Trigger::Exec || !settings::is_root(settings))
    {
        return Ok(());
    }
    let begun = ledger.inode.load(Relaxed) != 0;
    let (file, new) = report_file::open(settings, ledger).map_err(|error| Stopped(Step::Open, error))?;
    let written = shared.written();
    if new {
        // Clearing touches all their pages.
        if begun {
            written.fill(0);
        }
        ledger.whole.store(0, Relaxed);
    }
    let number = ledger.scan.load(Relaxed) + 1;
    ledger.step.store(Step::Write as u32, Relaxed);
    let mut writer = Writer::new(Out { file, error: None });
    if new {
        header(&mut writer, settings)?;
    }
    writer.scan(number, job.trigger, sys::clock_ns(sys::CLOCK_REALTIME) / 1_000_000_000);
    let folds = folds.sorted();
    let wrong = misuse::all().flat_map(|misuse| [misuse.made, misuse.freed]);
    stacks(&mut writer, folds.iter().map(|fold| fold.key.stack).chain(wrong), loaded, written);
    counters(&mut found, job.trigger, shared, settings);
    found.stats.pause_us = pause(shared);
    found.stats.scan_ms = (sys::clock_ns(sys::CLOCK_MONOTONIC) - found.begun_ns) / 1_000_000;
    found.stats.cpu_ms = (sys::clock_ns(sys::CLOCK_PROCESS_CPUTIME) - found.cpu_ns) / 1_000_000;
    writer.stats(job.way.word(), &found.stats);
    folds.iter().for_each(|fold| writer.leak(&leak(fold)));
    writer.check(&found.check);
    misuse::all().for_each(|misuse| writer.misuse(&misuse));
    found.unseen.items.iter().for_each(|item| writer.unseen(name(&item.what), item.count, text(&item.why)));
    writer.end(number);
    if !writer.finish() {
        return Err(Stopped(Step::Write, writer.sink().error.unwrap_or(Errno::ENOSPC)));
    }
    ledger.whole.store(writer.written() + if new { 0 } else { ledger.whole.load(Relaxed) }, Relaxed);
    ledger.scan.store(number, Relaxed);
    Ok(())
}

fn name(what: &[u8; 24]) -> &str {
    core::str::from_utf8(text(what)).unwrap_or("?")
}

fn header(writer: &mut Writer<Out>, settings: &Settings) -> Result<(), Stopped> {
    let memory = Stopped(Step::Memory, Errno::ENOMEM);
    let mut link = [0u8; 1024];
    let exe = report_file::read_link(c"/proc/self/exe", &mut link);
    let buffer = arena::zeroed::<u8>(4096).ok_or(memory)?;
    let len = sys::read_file(c"/proc/self/cmdline", buffer).map_or(0, <[u8]>::len);
    let args = &mut buffer[..len];
    if let Some(last) = args.last_mut()
        && *last != 0
    {
        // Cut at the buffer's end.
        *last = b'~';
    }
    args.iter_mut().filter(|byte| **byte == 0).for_each(|byte| *byte = b' ');
    writer.header(&Process {
        pid: settings::PID.load(Relaxed),
        ppid: settings::PPID.load(Relaxed),
        start: settings::STARTED.load(Relaxed),
        version: env!("CARGO_PKG_VERSION").as_bytes(),
        run: settings.run.as_bytes(),
        exe,
        args: args.trim_ascii_end(),
        options: settings.text.as_bytes(),
    });
    Ok(())
}

/// Defines the stacks that stand in no block yet, and the modules that they name.
fn stacks(writer: &mut Writer<Out>, ids: impl Iterator<Item = u32> + Clone, loaded: &[Module], written: &mut [u8]) {
    let bit = |id: StackId| (id.get() as usize / 8, 1u8 << (id.get() % 8));
    let fresh = |written: &[u8], id: StackId| {
        let (byte, mask) = bit(id);
        written.get(byte).is_some_and(|bits| bits & mask == 0)
    };
    let mut named: List<u32> = List::new();
    for id in ids.clone().filter_map(StackId::new).filter(|id| fresh(written, *id)) {
        for node in frames(id) {
            if let Some((index, module)) = module_of(node, loaded)
                && !named.contains(&index)
            {
                writer.module(&module.record(index));
                let _ = named.push(index);
            }
        }
    }
    for id in ids {
        let Some(id) = StackId::new(id).filter(|id| fresh(written, *id)) else { continue };
        let (byte, mask) = bit(id);
        written[byte] |= mask;
        writer.stack(id.get(), frames(id).map(|node| frame(node, loaded)));
    }
}

/// The frames of a stack without ours (the start routine around a thread's own).
fn frames(id: StackId) -> impl Iterator<Item = &'static Node> {
    let nodes = TRACKER.depot.frames(id).iter().filter_map(|id| UNWINDER.frames.get(id));
    nodes.filter(|node| !own::holds(node.address()))
}

fn frame(node: &Node, loaded: &[Module]) -> Frame {
    let address = node.address() as u64;
    match module_of(node, loaded) {
        Some((index, module)) => {
            Frame { module: Some(index), offset: address.wrapping_sub(module.bias as u64), exact: node.is_exact() }
        }
        None => Frame { module: None, offset: address, exact: node.is_exact() },
    }
}

/// The file that a frame's address was in when it was recorded, and its number in the block: loaded files first, then those
/// that dlclose took away.
fn module_of<'m>(node: &Node, loaded: &'m [Module]) -> Option<(u32, &'m Module)> {
    let addr = node.lookup_pc();
    let mut gone = UNWINDER.frames.retired_ranges().enumerate().filter(|(_, range)| range.contains(addr));
    if let Some((index, _)) = gone.nth(node.tag() as usize) {
        return Some(((loaded.len() + index) as u32, modules::retired(index)?));
    }
    let index = loaded.partition_point(|module| module.range.end <= addr);
    let module = loaded.get(index).filter(|module| module.range.contains(addr))?;
    Some((index as u32, module))
}

fn leak(fold: &Fold) -> Leak {
    let (estimated, errors) = (fold.estimate.0 > 0.0, fold.errors());
    let round = |value: f64| (value + 0.5) as u64;
    Leak {
        kind: [Kind::Direct, Kind::Indirect, Kind::Possible][usize::from(fold.key.kind).min(2)],
        status: if fold.key.confirmed { Status::Confirmed } else { Status::Suspected },
        stack: fold.key.stack,
        blocks: if estimated { round(fold.estimate.0) } else { fold.count.blocks },
        bytes: if estimated { round(fold.estimate.1) } else { fold.count.bytes },
        exact: !estimated,
        error_blocks: round(errors.0),
        error_bytes: round(errors.1),
        indirect_blocks: fold.behind.blocks,
        indirect_bytes: fold.behind.bytes,
    }
}

/// What was counted while the program ran.
fn counters(found: &mut Findings, trigger: Trigger, shared: &Shared, settings: &Settings) {
    let unseen = &mut found.unseen;
    let count = |counter: &core::sync::atomic::AtomicU64| counter.load(Relaxed) as usize;
    found.stats.stacks = u64::from(TRACKER.depot.count());
    found.stats.own_bytes = arena::own_bytes() as u64;
    unseen.add_count(
        "block",
        count(&TRACKER.lost),
        b"blocks could not be entered for want of memory: what they point to may be reported",
    );
    unseen.add_count(
        "block",
        count(&TRACKER.odd),
        b"blocks of another allocator begin at no multiple of 16 bytes and were not entered: what they point to may be reported",
    );
    unseen.add_count("stack", TRACKER.depot.lost() as usize, b"allocations whose stack found no room in the depot");
    unseen.add_count("record", TRACKER.table.dropped() as usize, b"blocks whose exact size found no room in the table");
    unseen.add_count(
        "unwind",
        UNWINDER.unsupported() as usize,
        b"code addresses whose unwind tables are too unusual: stacks end there",
    );
    unseen.add_count("unwind-check", count(&check::DIFFERENT), b"stacks that differ from libgcc's");
    unseen.add_count(
        "malloc",
        BYPASSED.load(Relaxed).into(),
        if PRELOADED_BEFORE.load(Relaxed) {
            b"a library before libleakscan.so has the malloc that is called: of its blocks only those are seen for which it calls ours; put libleakscan.so first in LD_PRELOAD"
        } else {
            b"the program has a malloc of its own, which is called instead of ours: of its blocks only those are seen for which it calls ours"
        },
    );
    unseen.add_count(
        "seccomp",
        (trigger == Trigger::Seccomp).into(),
        b"the program puts a filter on its system calls that would end it for a scan: with it there is none that would confirm what this one found first",
    );
    unseen.add_count(
        "chroot",
        (trigger == Trigger::Chroot).into(),
        b"the program changes its root directory: where the new one has no /proc, or no folder for the report, this is the last scan",
    );
    unseen.add_count("allocator", (!bundled::refused().is_empty()).into(), bundled::refused());
    unseen.add_count(
        "pymalloc",
        PYMALLOC.load(Relaxed).into(),
        b"Python serves blocks of up to 512 bytes from arenas of its own: not seen; PYTHONMALLOC=malloc shows them",
    );
    unseen.add_count(
        "free",
        count(&TRACKER.unknown),
        b"frees of blocks that we do not know: made before us, or by another allocator",
    );
    unseen.add_count(
        "misuse",
        count(&misuse::OTHERS),
        b"blocks freed the wrong way beyond the 64 ways that are listed",
    );
    if settings.options.sample != 0 {
        unseen.add_count(
            "sampling",
            1,
            b"stacks are recorded for a sample only: figures per stack are estimates, totals are exact",
        );
        unseen.add_count(
            "sampling",
            shared.ledger.wanted.count() as usize,
            b"sizes, of which blocks were found lost without a stack: since then all blocks of these sizes have one",
        );
    }
    let failed = shared.ledger.failed.load(Relaxed) as usize;
    let error = shared.ledger.failed_errno.load(Relaxed);
    let step: &[u8] = match shared.ledger.failed_step.load(Relaxed) {
        _ if error == 1 << 16 | 14 => b"earlier scans were given up at their deadline",
        step if step == Step::Clone as u32 => b"earlier scans could not copy the process (fork refused)",
        step if step == Step::Memory as u32 => b"earlier scans had not enough memory",
        step if step >= Step::Open as u32 => b"earlier scans could not be written",
        _ => b"earlier scans did not finish",
    };
    unseen.add_count("scan", failed, step);
}

/// How long the threads stood still: the helper says so when they run again, which may be after us.
fn pause(shared: &Shared) -> u64 {
    for _ in 0..1000 {
        match shared.ledger.pause_us.load(Relaxed) {
            0 => sys::sleep_ns(100_000),
            pause => return pause,
        }
    }
    0
}
