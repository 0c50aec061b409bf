//! Gathers the roots of a snapshot and hands them to the marker: registers, stacks, thread-local storage, and what the
//! mappings hold.
#![allow(unsafe_code)] // reads the copied memory

use crate::child::{Step, Stopped};
use crate::emit::Unseen;
use crate::forget::Audit;
use crate::modules::{self, MapsText, Module};
use crate::shims::{TLS_ABOVE, TLS_BELOW};
use crate::snapshot::{self, Job, Way};
use crate::state::FOREIGN_ALLOCATOR;
use crate::stop::State;
use crate::threads::{Fate, Stack};
use crate::tls::{self, Mover};
use crate::unforked::Copied;
use crate::{alternate, bundled, deepbind, facts, heaps, own, pools, regions, threads};
use core::sync::atomic::Ordering::Relaxed;
use leakscan_engine::AddrRange;
use leakscan_engine::arena::{self, List};
use leakscan_engine::scan::blocks::SizeOf;
use leakscan_engine::scan::maps::{self, Mapping};
use leakscan_engine::scan::mark::{How, Marker};
use leakscan_engine::scan::resident::Pages;
use leakscan_engine::scan::roots::{self, Class, Facts, Resident, normalize};
use leakscan_engine::sys::{self, Errno, nr};
use leakscan_options::Options;

pub const MEMORY: Stopped = Stopped(Step::Memory, Errno::ENOMEM);
/// Below the stack pointer, where leaf functions keep words (the x86-64 ABI).
const RED_ZONE: usize = 128;

/// A running thread, whatever way it was stopped.
#[derive(Clone, Copy)]
struct Thread {
    tid: u32,
    /// 0: unknown.
    sp: usize,
    tls: usize,
    /// How far below its stack pointer it may keep words.
    red_zone: usize,
}

impl Thread {
    fn low(self) -> usize {
        self.sp.saturating_sub(self.red_zone)
    }
}

/// What [`roots`] has found beside the roots.
pub struct Gathered {
    /// All that may hold pointers was read.
    pub all_read: bool,
    /// The files with code.
    pub modules: List<Module>,
}

/// See the module.
///
/// # Safety
/// In the snapshot child, with its fault handler in place.
pub unsafe fn roots<S: SizeOf>(
    job: &Job,
    options: &Options<'_>,
    copied: &Copied,
    pages: &mut Pages,
    marker: &mut Marker<'_, '_, S>,
    unseen: &mut Unseen,
    audit: &mut Audit,
) -> Result<Gathered, Stopped> {
    let mut text = MapsText::new();
    let text = text.read().map_err(|error| Stopped(Step::Maps, error))?;
    let mappings = &maps::list(text).ok_or(MEMORY)?;
    // What is read by itself, or not at all.
    let mut excluded: List<AddrRange> = List::new();
    let exclude = |excluded: &mut List<AddrRange>, range| excluded.push(range).then_some(()).ok_or(MEMORY);
    // Ranges to be read as stacks and as thread-local storage.
    let (mut stacks, mut storage): (List<AddrRange>, List<AddrRange>) = (List::new(), List::new());

    let (mut live, mut standing): (List<u32>, List<usize>) = (List::new(), List::new());
    // Those that stand on the stack that they were started with.
    let mut at_home: List<u32> = List::new();
    // Control blocks of records that are theirs.
    let mut taken: List<usize> = List::new();
    // It has called us, so that nothing of its own lies below.
    let caller = Thread { tid: job.caller.tid, sp: job.caller.sp, tls: job.caller.tls, red_zone: 0 };
    let stopped = job.crew.found().iter().filter(|thread| thread.state != State::Gone);
    let all = stopped
        .map(|thread| Thread { tid: thread.tid, sp: thread.sp, tls: thread.tls, red_zone: RED_ZONE })
        .chain([caller]);
    for thread in all {
        if !live.push(thread.tid) || !standing.push(thread.sp) {
            return Err(MEMORY);
        }
        // (The number may have been another thread's before; and a thread of libc's own may have the stack of one that ended.)
        let is_its = |stack: &Stack| stack.tid == thread.tid && (thread.tls == 0 || stack.pointer == thread.tls);
        let is_taken = |stack: &Stack| stack.pointer == thread.tls && stack.range.contains(thread.sp);
        let recorded = threads::stacks().find(is_its).or_else(|| threads::stacks().find(is_taken));
        taken.push(recorded.map_or(0, |stack| stack.pointer)).then_some(()).ok_or(MEMORY)?;
        // A thread that stands on a block (a coroutine's stack from malloc, an alternate signal stack): the block is in use
        // from its stack pointer on, whoever points to it.
        let block = marker.blocks.find(thread.sp).map(|(block, _)| block);
        let places = place(thread, recorded, job.pid, mappings, block.is_some());
        if !places.stack.is_empty() {
            exclude(&mut excluded, places.stack)?;
            let _ = stacks.push(places.stack);
        }
        if !places.storage.is_empty() {
            exclude(&mut excluded, places.storage)?;
            let _ = storage.push(places.storage);
        }
        if !places.dead.is_empty() {
            at_home.push(thread.tid).then_some(()).ok_or(MEMORY)?;
            exclude(&mut excluded, places.dead)?;
        }
        if let Some(block) = block {
            let end = block + marker.blocks.usable(block);
            let _ = stacks.push(AddrRange::new(thread.low().max(block), end));
        }
    }
    // Alternate signal stacks that nobody stands on. What is left there keeps nothing, unless the handler has gone on elsewhere and comes
    // back: its thread is on no stack of its own then. (Where a signal has stopped a thread, the topmost frame is ours.)
    let mut idle: List<AddrRange> = List::new();
    let is_away =
        |tid| live.contains(&tid) && (!at_home.contains(&tid) || job.way == Way::Signal && tid != job.caller.tid);
    for (tid, stack) in alternate::stacks() {
        let range = stack.range();
        if standing.iter().any(|sp| range.contains(*sp)) {
            continue;
        }
        // Its memory may be another block's by now.
        if tid == tls::PARENTS || is_away(tid) || !alternate::is_left(stack, marker.blocks, pages) {
            marker.root_word(range.start);
            continue;
        }
        match marker.blocks.find(range.start) {
            // A block that is more than the stack may hold anything.
            Some((block, _)) if marker.blocks.extent(block) > range.len() + 4096 => marker.root_word(range.start),
            _ => marker.hold(range.start),
        }
        exclude(&mut excluded, range)?;
        exclude(&mut idle, range)?;
    }
    live.sort_unstable();
    unstopped(job, unseen);

    let mut missed = 0;
    for other in threads::stacks().filter(|stack| live.binary_search(&stack.tid).is_err()) {
        let fate = other.fate();
        if taken.contains(&other.pointer) || fate == Fate::Unknown || fate == Fate::Over && other.given {
            continue;
        }
        // glibc keeps the stacks of ended threads for the next ones.
        exclude(&mut excluded, other.range)?;
        match fate {
            Fate::Runs | Fate::Parents => {
                missed += usize::from(fate == Fate::Runs);
                let _ = stacks.push(AddrRange::new(other.range.start, other.entry));
                let _ = storage.push(AddrRange::new(other.entry, other.range.end));
            }
            Fate::Returned => {
                let block = other.block();
                let _ = storage.push(AddrRange::new(block.start.max(other.entry), block.end.min(other.range.end)));
            }
            _ => other.storage().for_each(|held| marker.hold_at_last(held)),
        }
    }
    // What only a register holds that was not seen must not be confirmed.
    let all_stopped = job.crew.found().iter().all(|thread| matches!(thread.state, State::Stopped | State::Gone));
    let all_registers = all_stopped && missed == 0 && job.crew.overflow == 0 && job.way != Way::None;
    unseen.add_count("thread", missed, b"were not found when the others were stopped; their stacks were taken whole");
    let foreign = FOREIGN_ALLOCATOR.load(Relaxed);
    // An allocator's memory, where the program may have blocks that did not come to us.
    let mut shared: List<AddrRange> = List::new();
    let past_us = foreign && heaps::are_made_past_us();
    if foreign {
        for range in regions::ALLOCATORS.iter().chain(heaps::granules(marker)) {
            exclude(&mut excluded, range)?;
            let _ = past_us && shared.push(range);
        }
    } else {
        let apart = deepbind::LOADED.load(Relaxed) != 0;
        let heap = mappings.iter().filter(|mapping| apart && mapping.path == b"[heap]");
        heap.for_each(|mapping| _ = shared.push(mapping.range));
        heaps::allocator_memory(marker, pages, mappings, |range| {
            let _ = apart && shared.push(range);
            exclude(&mut excluded, range)
        })?;
    }
    if options.use_stacks {
        for mover in tls::moving() {
            let found = job.crew.found().iter().find(|found| found.tid == mover.tid);
            let (sp, registers) = match found {
                Some(found) => (found.sp, &found.general[..]),
                None if mover.tid == job.caller.tid => (job.caller.sp, &job.caller.registers[..]),
                None => continue,
            };
            moved(&mover, sp, registers, mappings, marker, pages);
        }
    }
    for range in arena::own_ranges().chain([bundled::heap().range()]) {
        exclude(&mut excluded, range)?;
    }
    exclude(&mut excluded, own::data())?;
    facts::devices(mappings, |range| exclude(&mut excluded, range))?;
    if job.trigger.is_end() && !job.is_amid {
        let mut room = true;
        pools::leave_out_gccs_garbage(marker.blocks, |range| room &= excluded.push(range));
        room.then_some(()).ok_or(MEMORY)?;
    }
    let used = normalize(&mut excluded);

    if options.use_registers {
        registers(job, marker);
    }
    audit.after(marker, "registers");
    let plain = How::default();
    if options.use_stacks {
        for &range in stacks.iter() {
            pages.each(range, Resident::Private, |run| {
                // SAFETY: a mapped stack, readable or repaired.
                unsafe { marker.root_range(run, plain) };
            });
        }
        for argument in threads::in_flight() {
            marker.root_word(argument);
        }
    }
    audit.after(marker, "stacks");
    if options.use_tls {
        // How far main's reaches below its thread pointer is a guess: the kernel may have joined a mapping of the program's to it.
        let used = normalize(&mut idle);
        for &range in storage.iter() {
            roots::subtract(range, &idle[..used], |part| {
                // SAFETY: as above.
                unsafe { marker.root_range(part, plain) };
            });
        }
    }
    audit.after(marker, "thread-local storage");
    let mut ends: List<usize> = List::new();
    let modules = modules::list(mappings.iter().copied()).ok_or(MEMORY)?;
    for module in modules.iter().filter(|module| module.end != 0) {
        ends.push(module.end).then_some(()).ok_or(MEMORY)?;
    }
    ends.sort_unstable();
    let sbrk =
        if foreign { Some(List::new()) } else { facts::programs_heap(mappings, &excluded[..used]) }.ok_or(MEMORY)?;
    let arenas = facts::arenas(mappings).ok_or(MEMORY)?;
    let facts =
        Facts { excluded: &excluded[..used], heap_is_allocators: !foreign, sbrk: &sbrk, arenas: &arenas, ends: &ends };
    let mut closed: List<(AddrRange, Resident)> = List::new();
    let (mut all_listed, mut left_in_files, mut untold) = (true, 0, 0);
    // Roots of the class that was read last.
    let mut at_work = "";
    let planned = roots::plan(
        mappings,
        &facts,
        |root| {
            // All code may have been changed where nobody tells what was: it is not read for that.
            let is_untold_code =
                root.how.unaligned && matches!(root.resident, Resident::Own { .. }) && !pages.are_told();
            let (wanted, name) = match root.class {
                Class::Globals => (options.use_globals, "globals"),
                Class::Stack => (options.use_stacks, "stacks"),
                Class::Mappings => (options.use_mappings, "mappings"),
            };
            untold += usize::from(wanted && is_untold_code);
            if wanted && !is_untold_code {
                if name != at_work {
                    audit.after(marker, core::mem::replace(&mut at_work, name));
                }
                let mut read = 0;
                pages.each(root.range, root.resident, |run| {
                    read += run.len();
                    // SAFETY: a readable mapping; pages that cannot be read are repaired.
                    unsafe { marker.root_range(run, root.how) };
                });
                if root.resident == (Resident::Shared { is_file: true }) {
                    left_in_files += (root.range.len() - read) / 4096;
                }
            }
        },
        |range, resident| {
            all_listed &= closed.push((range, resident));
        },
    );
    if !planned || !all_listed {
        return Err(MEMORY);
    }
    audit.after(marker, at_work);
    if options.use_mappings {
        if past_us {
            let apart = normalize(&mut shared);
            // SAFETY: the allocator's memory; faults are repaired.
            unsafe { heaps::root_others_blocks(marker, pages, &shared[..apart]) }.ok_or(MEMORY)?;
        } else {
            for &range in shared.iter() {
                // SAFETY: glibc's memory, as it was found; faults are repaired.
                unsafe { deepbind::root_gaps(marker, pages, range) }.ok_or(MEMORY)?;
            }
        }
        let why = b"blocks may be made by functions of the allocator's own (mi_malloc): what they point to is kept, whether they are lost is not known";
        unseen.add_count("allocator", past_us.into(), why);
        let why = b"pages of large shared mappings that are in their files, and not in memory: not read";
        unseen.add_count("file-page", left_in_files, why);
        let why = b"files' code may have been written to, which the kernel does not say of a process that is not dumpable: not read";
        unseen.add_count("code", untold, why);
        let why = b"pieces of memory from sbrk were more than are kept in mind: not read, and nothing is confirmed";
        unseen.add_count("sbrk", regions::SBRK.lost(), why);
        closed_pages(&closed, pages, marker, unseen);
        let all = copied.mark(marker, unseen) && regions::SBRK.lost() == 0;
        audit.after(marker, "mappings");
        return Ok(Gathered { all_read: all && all_registers, modules });
    }
    Ok(Gathered { all_read: all_registers, modules })
}

/// The block that a realloc has made and that is not in the live map yet: its address is in a register, or on the stack below the
/// caller of realloc. It holds what the old one held, part of which the allocator may have overwritten by now.
fn moved<S: SizeOf>(
    mover: &Mover,
    sp: usize,
    registers: &[usize],
    mappings: &[Mapping<'_>],
    marker: &mut Marker<'_, '_, S>,
    pages: &mut Pages,
) {
    /// Our frames and the allocator's.
    const DEEPEST: usize = 64 << 10;
    let (size, caller) = (mover.moving.size.load(Relaxed), mover.moving.sp.load(Relaxed));
    let foreign = FOREIGN_ALLOCATOR.load(Relaxed);
    let mut seen: List<usize> = List::new();
    let mut may_be = |word: usize, pages: &mut Pages| {
        if !word.is_multiple_of(16) || word >> sys::USER_BITS != 0 || word < 65536 || marker.blocks.is_start(word) {
            return;
        }
        let len = if let Some(usable) = bundled::heap().usable(word) {
            usable.min(size)
        } else if foreign {
            if regions::ALLOCATORS.iter().any(|range| range.contains(word)) { size } else { 0 }
        } else if pages.exists(word - 8) {
            // SAFETY: the page exists. Before a block of glibc's stands its size: of one that is mapped, maybe still the old one.
            let header = unsafe { *((word - 8) as *const usize) };
            let usable = (header & !7).saturating_sub(8);
            let mapped = header & 2 != 0 && word % 4096 == 16 && (usable + 8).is_multiple_of(4096);
            if mapped || usable.wrapping_sub(size) < 32 { usable.min(size) } else { 0 }
        } else {
            0
        };
        // What looks like a header may be anything.
        let end =
            mappings.iter().find(|mapping| mapping.range.contains(word)).map_or(word, |mapping| mapping.range.end);
        let range = AddrRange::new(word, word.saturating_add(len).min(end));
        if len != 0 && !range.is_empty() && !seen.contains(&word) {
            let _ = seen.push(word);
            pages.each(range, Resident::Private, |run| {
                // SAFETY: pages that cannot be read are repaired.
                unsafe { marker.root_range(run, How::default()) };
            });
        }
    };
    registers.iter().for_each(|word| may_be(*word, pages));
    let from = sp.next_multiple_of(8);
    let mut read = |range: AddrRange, pages: &mut Pages| {
        for at in (range.start..range.end).step_by(8) {
            // SAFETY: on the thread's stack, or its alternate one, from its stack pointer on; or a page that exists.
            may_be(unsafe { *(at as *const usize) }, pages);
        }
    };
    if from != 0 && from < caller && caller - from <= DEEPEST {
        return read(AddrRange::new(from, caller), pages);
    }
    // A signal handler has interrupted it, and stands elsewhere: where its alternate stack ends are the registers of before.
    if mover.alternate.contains(from) {
        read(AddrRange::new(from, mover.alternate.end), pages);
    }
    let below = AddrRange::new((caller - DEEPEST).next_multiple_of(8), caller);
    let mut there: List<AddrRange> = List::new();
    pages.each_resident(below, Resident::Private, |run| _ = there.push(run));
    there.iter().for_each(|run| read(*run, pages));
}

/// Where a thread's words lie.
struct Places {
    stack: AddrRange,
    storage: AddrRange,
    /// Below its stack pointer: what it has left behind.
    dead: AddrRange,
}

/// `on_block`: it stands on one, beside which there are others.
fn place(thread: Thread, recorded: Option<Stack>, pid: u32, mappings: &[Mapping<'_>], on_block: bool) -> Places {
    let none = AddrRange::default();
    let from = thread.low();
    let mut places = Places { stack: none, storage: none, dead: none };
    if let Some(stack) = recorded {
        places.storage = AddrRange::new(stack.entry, stack.range.end);
        let low = if stack.range.contains(thread.sp) { from } else { stack.range.start };
        places.stack = AddrRange::new(low, stack.entry);
        places.dead = AddrRange::new(stack.range.start, low);
        return places;
    }
    let around = |addr: usize| mappings.iter().find(|mapping| mapping.range.contains(addr));
    if thread.tid == pid && thread.tls != 0 {
        let low = around(thread.tls).map_or(thread.tls, |mapping| mapping.range.start);
        let high = around(thread.tls).map_or(thread.tls, |mapping| mapping.range.end);
        let block = threads::control_block(thread.tls);
        let storage = AddrRange::new(block.start.min(thread.tls - TLS_BELOW), block.end.max(thread.tls + TLS_ABOVE));
        places.storage = AddrRange::new(storage.start.max(low), storage.end.min(high));
    }
    if let Some(mapping) =
        around(thread.sp).filter(|mapping| mapping.is_anonymous() && mapping.path != b"[heap]" && !on_block)
    {
        places.stack = AddrRange::new(from.max(mapping.range.start), mapping.range.end);
        // A pthread's that was not made through us: its control block lies on top, a guard below.
        let guarded =
            mappings.iter().any(|guard| guard.range.end == mapping.range.start && !guard.read && !guard.write);
        let pthreads = mapping.range.contains(thread.tls) && thread.tls > thread.sp && guarded;
        if mapping.path == b"[stack]" || pthreads {
            places.dead = AddrRange::new(mapping.range.start, from.max(mapping.range.start));
        }
    }
    places
}

/// Says which threads were not stopped.
fn unstopped(job: &Job, unseen: &mut Unseen) {
    for thread in job.crew.found() {
        let why: &[u8] = match thread.state {
            State::Running | State::Asked | State::Taken => b"did not stop; its stack was taken whole, its registers were not seen: nothing is confirmed",
            State::Frozen if thread.is_uninterruptible => {
                b"waits in the kernel where nothing stops it; of its registers only the call's arguments were seen: nothing is confirmed"
            }
            State::Frozen => {
                b"waits and blocks the signal; of its registers only the call's arguments were seen: nothing is confirmed"
            }
            _ => continue,
        };
        unseen.add_thread(thread.tid, why);
    }
    let blind = job.way == Way::None;
    unseen.add_count(
        "stop",
        blind.into(),
        b"neither ptrace nor a signal could stop the threads: they ran on while copied, and nothing is confirmed",
    );
    unseen.add_count("thread", job.crew.overflow, b"threads that started during the stop found no room in its list");
}

fn registers<S: SizeOf>(job: &Job, marker: &mut Marker<'_, '_, S>) {
    for &word in &job.caller.registers {
        marker.root_word(word);
    }
    marker.root_word(sys::spare_base());
    for (index, thread) in job.crew.found().iter().enumerate() {
        if thread.has_registers {
            thread.general.iter().for_each(|word| marker.root_word(*word));
        }
        job.crew.vector(index).iter().for_each(|word| marker.root_word(*word));
    }
}

/// Pages that the program has taken every right from may still hold its pointers: read, and named.
fn closed_pages<S: SizeOf>(
    ranges: &[(AddrRange, Resident)],
    pages: &mut Pages,
    marker: &mut Marker<'_, '_, S>,
    unseen: &mut Unseen,
) {
    let mut count = 0;
    for &(range, resident) in ranges {
        pages.each_resident(range, resident, |run| {
            snapshot::copy_is_needed();
            // SAFETY: changes this process's copy only.
            if unsafe { sys::call(nr::MPROTECT, [run.start, run.len(), sys::PROT_READ, 0, 0, 0]) }.is_ok() {
                count += run.len() / 4096;
                // SAFETY: readable since the line above.
                unsafe { marker.root_range(run, How::default()) };
            }
        });
    }
    unseen.add_count("closed-page", count, b"pages without any permission hold data: read as roots all the same");
}
