//! The snapshot child: a copy of the program in which nobody runs but us. It scans, writes one block, and exits.
//!
//! Only raw system calls and the arena; nothing of the program's is kept open but what is asked for in the first moment. A
//! fault on a page that cannot be read is repaired by an empty page and counted. A watchdog ends it at the deadline.
#![allow(unsafe_code)] // signal handlers, reads of the copied memory

use crate::emit::{self, Findings};
use crate::forget::Audit;
use crate::helper::spare_if_full;
use crate::keys::Keys;
use crate::offsets;
use crate::shims::{open_protection_keys, pointer_guard, unmangled};
use crate::snapshot::{self, Job, Way};
use crate::state::{FOREIGN_ALLOCATOR, TRACKER, USES_SLACK};
use crate::stop::{self, State};
use crate::unforked::Copied;
use crate::{
    bundled, clone, contexts, deepbind, gather, given_back, kernel, ledger, pending, pools, real, settings, tls,
};
use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicU64, Ordering::Acquire, Ordering::Relaxed, Ordering::SeqCst};
use leakscan_engine::AddrRange;
use leakscan_engine::arena::List;
use leakscan_engine::record::live_map::Cell;
use leakscan_engine::record::sampler::weight;
use leakscan_engine::scan::blocks::{Blocks, SizeOf};
use leakscan_engine::scan::classify::leaked;
use leakscan_engine::scan::fold::{Folds, Key, Seen, freed_since, seen_before};
use leakscan_engine::scan::mark::{Count, Marker};
use leakscan_engine::scan::resident::Pages;
use leakscan_engine::sys::{self, Errno, nr};

pub use crate::report_file::{cut_back, tell};

/// How far a child came; its exit status where it failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Step {
    Clone = 1,
    /// Memory for the scan's tables.
    Memory = 2,
    /// Reading /proc/self/maps.
    Maps = 3,
    Scan = 4,
    Open = 5,
    Write = 6,
    Done = 7,
}

/// What stopped a child.
#[derive(Clone, Copy, Debug)]
pub struct Stopped(pub Step, pub Errno);

/// Pages that could not be read.
static REPAIRED: AtomicU64 = AtomicU64::new(0);
/// Of these, the guards.
static GUARDS: AtomicU64 = AtomicU64::new(0);

/// The child's whole life.
pub fn run(job: &mut Job) -> ! {
    open_protection_keys();
    // It is the program's; we are another process, whose limits are its own.
    sys::lift_memory_limit();
    const CORE: usize = 4;
    // SAFETY: the kernel reads two words: no core dumps of this process.
    let _ = unsafe { sys::call(nr::SETRLIMIT, [CORE, [0usize; 2].as_ptr() as usize, 0, 0, 0, 0]) };
    let status = match ledger::get() {
        None => Step::Memory as u32,
        Some(shared) => {
            job.known_as = known_as(job.pid);
            let status = match scan(job, &shared) {
                Ok(()) => {
                    shared.ledger.step.store(Step::Done as u32, Relaxed);
                    0
                }
                Err(Stopped(step, error)) => {
                    shared.ledger.step.store(step as u32, Relaxed);
                    shared.ledger.errno.store(error.0 as u32, Relaxed);
                    step as u32
                }
            };
            // (Whoever still waits for what it was to copy waits in vain.)
            shared.ledger.copied.store(1, Relaxed);
            // In this order here, and the other one where a scan is asked for: one of the two sees the other.
            shared.ledger.over.store(1, SeqCst);
            if shared.ledger.pending.load(SeqCst) != 0 {
                let signal = stop::signal::number() as usize;
                // SAFETY: asks the program for a scan, as `leakscan scan` does.
                let _ = unsafe { sys::call(nr::KILL, [job.pid as usize, signal, 0, 0, 0, 0]) };
            }
            status
        }
    };
    loop {
        // SAFETY: ends this process.
        unsafe { sys::syscall(nr::EXIT_GROUP, [status as usize, 0, 0, 0, 0, 0]) };
    }
}

/// Whether the program has come out of the stop. One that was killed in it may have lost threads before the copy was made, and what these knew
/// is no leak. One that is suspended, or does not come to it for long, was not killed.
fn program_went_on(job: &Job, ledger: &ledger::Ledger) -> bool {
    const LOOK_NS: u64 = 20_000_000;
    const LONG_NS: u64 = 5_000_000_000;
    let begun = sys::clock_ns(sys::CLOCK_MONOTONIC);
    let mut looked = begun;
    while ledger.went_on.load(Acquire) == 0 {
        if sys::getppid() != job.pid {
            return ledger.went_on.load(Acquire) != 0;
        }
        sys::sleep_ns(200_000);
        let now = sys::clock_ns(sys::CLOCK_MONOTONIC);
        if now - looked > LOOK_NS {
            looked = now;
            let first = stop::first_thread_of(job.known_as);
            if first.is_some_and(|first| first.is_suspended || !first.is_exiting && now - begun > LONG_NS) {
                return true;
            }
        }
    }
    true
}

/// The program's number in /proc, whose child this is.
fn known_as(pid: u32) -> u32 {
    let mut known = pid;
    if !stop::proc_is_ours(sys::getpid()) {
        let _ = sys::each_line(c"/proc/self/status", &mut [0; 2048], |line| {
            let parent = line.strip_prefix(b"PPid:\t").and_then(|digits| core::str::from_utf8(digits).ok());
            known = parent.and_then(|digits| digits.parse().ok()).unwrap_or(known);
        });
    }
    known
}

/// What the program will not look at again, where it lies among what it will: in this copy nothing is there.
///
/// # Safety
/// In the snapshot child.
unsafe fn clear_what_is_over<S: SizeOf>(job: &Job, pages: &mut Pages, blocks: &Blocks<'_, S>) {
    let clear = |pages: &mut Pages, range: AddrRange| {
        snapshot::copy_is_needed();
        // SAFETY: the program's memory, which is this process's copy, or no private memory, which stays as it is.
        unsafe { clear(pages, range) };
    };
    contexts::over(job, blocks).for_each(|range| clear(pages, range));
    if let Some(keys) = Keys::find().filter(Keys::were_deleted) {
        let others = job.crew.found().iter().filter(|thread| thread.state != State::Gone).map(|thread| thread.tls);
        for tls in others.chain([job.caller.tls]) {
            keys.stale(tls).for_each(|word| clear(pages, AddrRange::new(word, word + 8)));
        }
    }
    // SAFETY: by this function's own contract.
    unsafe { given_back::clear() };
    // SAFETY: as above.
    unsafe { pools::clear_perls_free_heads(pages, blocks) };
}

/// Whole pages are let go, so that there are new ones, whatever may be done with them. The rest is written over, where the page is no
/// other process's.
///
/// # Safety
/// In a copy of the program.
unsafe fn clear(pages: &mut Pages, range: AddrRange) {
    let (start, end) = (range.start.next_multiple_of(4096), range.end & !4095);
    if start < end {
        // SAFETY: by this function's own contract. What is mapped there stays so.
        let _ = unsafe { sys::forget(start, end - start) };
    }
    let edges =
        if start <= end { [(range.start, start), (end, range.end)] } else { [(range.start, range.end), (0, 0)] };
    for (start, end) in edges.into_iter().filter(|(start, end)| start < end) {
        // SAFETY: as above.
        pages.each_own(AddrRange::new(start, end), |own| unsafe { (own.start as *mut u8).write_bytes(0, own.len()) });
    }
}

/// No block has so many bytes: a program has written over its header, and nothing can be said of it.
const ABSURD: usize = 1 << 46;

/// Sizes by glibc's chunk headers, or by another allocator's own function.
pub struct Sizes;

impl SizeOf for Sizes {
    #[inline(always)]
    fn usable(&self, addr: usize, _: Cell) -> usize {
        if let Some(usable) = size_of_moved(addr) {
            return usable;
        }
        if FOREIGN_ALLOCATOR.load(Relaxed) {
            return real::usable_size(addr);
        }
        if let Some(usable) = bundled::heap().usable(addr) {
            return usable;
        }
        // SAFETY: a block of glibc's has its chunk header before it.
        let header = unsafe { *((addr - 8) as *const usize) };
        let size = (header & !7).wrapping_sub(if header & 2 != 0 { 16 } else { 8 });
        if size < ABSURD { size } else { 0 }
    }

    fn requested(&self, addr: usize, cell: Cell) -> usize {
        let usable = self.usable(addr, cell);
        TRACKER.requested(addr, cell, usable).unwrap_or(usable)
    }

    #[inline(always)]
    fn both(&self, addr: usize, cell: Cell) -> (usize, usize) {
        let usable = self.usable(addr, cell);
        let requested = TRACKER.requested(addr, cell, usable).unwrap_or(usable);
        (requested, if USES_SLACK.load(Relaxed) { usable } else { requested })
    }

    fn extent(&self, addr: usize, cell: Cell) -> usize {
        if USES_SLACK.load(Relaxed) { self.usable(addr, cell) } else { self.requested(addr, cell) }
    }
}

/// The old blocks of the reallocs that are under way, which are not in the live map, in the order of addresses. (In another one a cell
/// may be the half of the one before.) Not those that were given back already, and in part or in all are another block by now.
fn moving() -> Option<List<(usize, Cell)>> {
    let mut old: List<(usize, Cell)> = List::new();
    for moving in tls::moving().map(|mover| mover.moving) {
        let (addr, cell) = (moving.addr.load(Relaxed), Cell(moving.cell.load(Relaxed)));
        old.push((addr, cell.without_slack())).then_some(())?;
    }
    let mut left: List<(usize, Cell)> = List::new();
    if !old.is_empty() {
        let blocks = Blocks::build(&TRACKER.live, &Sizes, &mut Pages::open()?)?;
        let covers = |block: usize, addr: usize| addr < block + blocks.usable(block);
        let is_anothers = |addr: usize| {
            blocks.is_start(addr)
                || blocks.is_start(addr + 16)
                || blocks.find(addr).is_some_and(|(block, _)| covers(block, addr))
        };
        for (addr, cell) in old.iter().filter(|(addr, _)| !is_anothers(*addr)) {
            left.push((*addr, *cell)).then_some(())?;
        }
    }
    left.sort_unstable_by_key(|(addr, _)| *addr);
    // (Where another block is by now, it has its own.)
    let mut sizes: List<(usize, usize)> = List::new();
    for moving in tls::moving().map(|mover| mover.moving) {
        let (addr, usable) = (moving.addr.load(Relaxed), moving.usable.load(Relaxed));
        if (1..ABSURD).contains(&usable) && left.iter().any(|(block, _)| *block == addr) {
            sizes.push((addr, usable)).then_some(())?;
        }
    }
    // SAFETY: in the child, which is one thread, and has not begun to ask for sizes.
    unsafe { *MOVED.0.get() = sizes };
    Some(left)
}

/// Of the blocks that are moved, where they are known, how many bytes they had before: their allocator is at them.
struct Moved(UnsafeCell<List<(usize, usize)>>);
// SAFETY: written in the snapshot child only, which has one thread. (Where it shares the program's memory no block is moved.)
unsafe impl Sync for Moved {}
static MOVED: Moved = Moved(UnsafeCell::new(List::new()));

fn size_of_moved(addr: usize) -> Option<usize> {
    // SAFETY: as for the type.
    let moved = unsafe { &*MOVED.0.get() };
    moved.iter().find(|(block, _)| *block == addr).map(|(_, usable)| *usable)
}

fn scan(job: &Job, shared: &ledger::Shared) -> Result<(), Stopped> {
    let begun = sys::clock_ns(sys::CLOCK_MONOTONIC);
    let memory = Stopped(Step::Memory, Errno::ENOMEM);
    let settings = settings::get().ok_or(memory)?;
    let options = &settings.options;
    spare_if_full();
    if !job.is_whole || job.keeps_out {
        ask_to_be_killed_first();
    }
    let copied = Copied::take(job, shared.ledger)?;
    // While its descriptors are open; where the program waits for us they stay so, and are looked at last, and seldom.
    let in_place = snapshot::is_in_place();
    let mut found = Findings::new(job, begun);
    let (mut kernel_words, mut all_values) = (List::new(), true);
    if options.use_kernel && !in_place {
        all_values = kernel::pointers(job.known_as, &job.timers, &mut kernel_words, &mut found.unseen);
        all_values &= pending::values(job, clone::may_trace(options.stop), &mut kernel_words, &mut found.unseen);
    }
    quiet_down(options.deadline);

    shared.ledger.step.store(Step::Scan as u32, Relaxed);
    let moving = moving().ok_or(memory)?;
    for (addr, cell) in moving.iter() {
        TRACKER.live.set(*addr, *cell);
    }
    let earlier = shared.seen();
    let freed = freed_since(earlier, &TRACKER.live);
    let pages = if in_place { Pages::open() } else { Pages::open_in_copy_of(job.known_as) };
    let mut pages = pages.ok_or(memory)?;
    let mut blocks = Blocks::build(&TRACKER.live, &Sizes, &mut pages).ok_or(memory)?;
    // SAFETY: this is the child.
    unsafe { clear_what_is_over(job, &mut pages, &blocks) };
    (found.check.confirmed_freed, found.check.suspected_freed) = freed;

    let secret = pointer_guard();
    let mut marker = Marker::new(&mut blocks);
    for (addr, _) in moving.iter() {
        marker.root_word(*addr);
    }
    for &word in kernel_words.iter() {
        marker.root_word(word);
    }
    let mut audit = Audit::default();
    audit.after(&mut marker, "the kernel");
    // SAFETY: this is the child, alone with its copy; faults are repaired.
    let gathered =
        unsafe { gather::roots(job, options, &copied, &mut pages, &mut marker, &mut found.unseen, &mut audit)? };
    marker.drain();
    if in_place && options.use_kernel && marker.blocks.unmarked().next().is_some() {
        all_values &= kernel::pointers(job.known_as, &job.timers, &mut kernel_words, &mut found.unseen);
        kernel_words.iter().for_each(|word| marker.root_word(*word));
        audit.after(&mut marker, "the kernel");
        marker.drain();
    }
    // SAFETY: the roots are this process's own memory still.
    let disguised = unsafe {
        let offsets = offsets::Holders::find();
        marker.disguised(move |word| unmangled(word, secret), move |cell| offsets.of(cell))
    };
    audit.after(&mut marker, "pointers in disguise");
    marker.hold_the_rest();
    audit.tell(marker.blocks, &mut found.unseen);
    found.unseen.add_count(
        "disguised",
        disguised.blocks as usize,
        b"blocks are reachable only by pointers in disguise (tagged, packed, shifted, mangled, to before them, offsets): taken for kept",
    );
    let (reached, possibly, starved) = (marker.reached, marker.possibly, marker.starved);
    found.stats.root_bytes = marker.root_bytes;
    if starved {
        return Err(memory);
    }
    // SAFETY: as above.
    let bypassed = unsafe { deepbind::mark_freed(&mut blocks) }.ok_or(memory)?;
    found.unseen.add_count("bypassed", bypassed, b"blocks were freed past us: neither live nor leaked");
    let past = deepbind::LOADED.load(Relaxed) as usize;
    found.unseen.add_count(
        "deepbind",
        past,
        b"libraries loaded so that their malloc does not come to us (RTLD_DEEPBIND, dlmopen): not seen; deepbind=0 may show it",
    );

    let mean = options.sample;
    let mut folds = Folds::default();
    if options.possible {
        for block in blocks.iter().filter(|block| blocks.is_extra(*block)) {
            let stack = blocks.cell(block).and_then(Cell::stack).map_or(0, |id| id.get());
            let fold = folds.entry(Key { kind: 2, confirmed: false, stack }).ok_or(memory)?;
            fold.count.add(blocks.requested(block));
        }
    }
    let result = leaked(&mut blocks).ok_or(memory)?;
    let next = shared.next_seen();
    let mut leaders = result.leaders.iter().peekable();
    let (mut direct, mut indirect, mut confirmed) = (Count::default(), Count::default(), Count::default());
    let mut unreachable = 0;
    for (index, &block) in result.unreachable.iter().enumerate() {
        let Some(cell) = blocks.cell(block) else { continue };
        let size = blocks.requested(block);
        unreachable += size as u64;
        let leader = leaders.next_if(|leader| leader.block == block);
        let sure = all_values && gathered.all_read && (job.trigger.is_end() || seen_before(earlier, block, cell.0));
        let stack = cell.stack().map_or(0, |id| id.get());
        let key = Key { kind: u8::from(leader.is_none()), confirmed: sure, stack };
        let fold = folds.entry(key).ok_or(memory)?;
        fold.count.add(size);
        if let Some(leader) = leader {
            fold.behind.blocks += leader.behind.blocks;
            fold.behind.bytes += leader.behind.bytes;
        }
        if mean != 0 && stack != 0 {
            let alone = !TRACKER.stands_for_others(block, cell);
            fold.estimate(size, if alone { 1.0 } else { weight(size, mean) });
        }
        if mean != 0 && stack == 0 && options.directed && !job.trigger.is_end() {
            shared.ledger.wanted.add(size);
        }
        if leader.is_some() { &mut direct } else { &mut indirect }.add(size);
        if sure {
            confirmed.add(size);
        }
        if let Some(place) = next.get_mut(index) {
            *place = Seen { addr: block, cell: cell.0, confirmed: u32::from(sure) };
        }
    }
    if mean != 0 {
        folds.leave_the_rest();
    }
    let kept = result.unreachable.len().min(next.len());
    found.unseen.add_count(
        "confirmation",
        result.unreachable.len() - kept,
        b"leaked blocks beyond what is kept from scan to scan",
    );

    let stats = &mut found.stats;
    (stats.live_blocks, stats.live_bytes) = ((blocks.count - bypassed) as u64, reached.bytes + unreachable);
    (stats.reachable_blocks, stats.reachable_bytes) = (reached.blocks, reached.bytes);
    (stats.possible_blocks, stats.possible_bytes) = (possibly.blocks, possibly.bytes);
    (stats.direct_blocks, stats.direct_bytes) = (direct.blocks, direct.bytes);
    (stats.indirect_blocks, stats.indirect_bytes) = (indirect.blocks, indirect.bytes);
    (stats.confirmed_blocks, stats.confirmed_bytes) = (confirmed.blocks, confirmed.bytes);
    let unread = REPAIRED.load(Relaxed) - GUARDS.load(Relaxed);
    found.unseen.add_count("page", unread as usize, b"pages of the program could not be read");

    if job.way != Way::Alone && !program_went_on(job, shared.ledger) {
        return Err(Stopped(Step::Clone, Errno::ESRCH));
    }
    emit::write(job, settings, shared, found, folds, &gathered.modules)?;
    shared.publish(kept);
    Ok(())
}

const SIGALRM: usize = 14;
const SIGSEGV: usize = 11;
const SIGBUS: usize = 7;

/// The kernel's `struct sigaction` on x86-64 and aarch64.
#[repr(C)]
struct Action {
    handler: usize,
    flags: usize,
    restorer: usize,
    mask: u64,
}

fn set_action(signal: usize, handler: usize) {
    const SA_SIGINFO: usize = 4;
    const SA_RESTORER: usize = 0x0400_0000;
    const SA_NODEFER: usize = 0x4000_0000;
    let flags = if handler == 0 { 0 } else { SA_SIGINFO | SA_RESTORER | SA_NODEFER };
    let action = Action { handler, flags, restorer: sys::restore_signal_frame as *const () as usize, mask: 0 };
    // SAFETY: this process is ours alone; the kernel reads the structure, whose mask has 8 bytes.
    let _ = unsafe { sys::call(nr::RT_SIGACTION, [signal, &raw const action as usize, 0, 8, 0, 0]) };
}

/// Where memory is short, this process is to end, not the program. (Of two with the same memory the kernel would end both.)
fn ask_to_be_killed_first() {
    if !snapshot::is_in_place()
        && let Ok(file) = sys::open(c"/proc/self/oom_score_adj", sys::O_WRONLY, 0)
    {
        let _ = file.write_all(b"1000");
    }
}

/// Lets go of everything that is the program's, and sets the watchdog.
fn quiet_down(deadline: u64) {
    // A pipe's end held open would delay its peer; our report is opened later.
    if !snapshot::is_in_place() {
        // SAFETY: this process's descriptors are copies that nobody uses.
        let _ = unsafe { sys::call(nr::CLOSE_RANGE, [0, usize::MAX >> 33, 0, 0, 0, 0]) };
    }
    ask_to_be_killed_first();
    set_action(SIGALRM, 0);
    set_action(SIGSEGV, repair as *const () as usize);
    set_action(SIGBUS, repair as *const () as usize);
    let timer = [0usize, 0, deadline as usize, 0];
    // SAFETY: the kernel reads the four words of an `itimerval`.
    let _ = unsafe { sys::call(nr::SETITIMER, [0, timer.as_ptr() as usize, 0, 0, 0, 0]) };
    // Everything stays blocked but the watchdog and the faults.
    let mask = !(1u64 << (SIGALRM - 1) | 1 << (SIGSEGV - 1) | 1 << (SIGBUS - 1));
    // SAFETY: SIG_SETMASK with a mask of 8 bytes that the kernel reads.
    let _ = unsafe { sys::call(nr::RT_SIGPROCMASK, [2, &raw const mask as usize, 0, 8, 0, 0]) };
}

/// A page could not be read (a file cut short, a mapping without permission): an empty one takes its place, in this copy. It counts as
/// not seen but where there is none at all: a guard in the midst of a mapping (MADV_GUARD_INSTALL, with which glibc since 2.42 ends the
/// stacks of threads).
unsafe extern "C" fn repair(signal: i32, info: *const usize, _: usize) {
    snapshot::copy_is_needed();
    const SEGV_MAPERR: u32 = 1;
    // SAFETY: the kernel gives a siginfo whose second word begins with the code and whose third is the address for these signals.
    let (code, page) = unsafe { (*info.add(1) as u32, *info.add(2) & !4095) };
    GUARDS.fetch_add(u64::from(signal == SIGSEGV as i32 && code == SEGV_MAPERR), Relaxed);
    const FIXED_PRIVATE_ANONYMOUS: usize = 0x10 | 2 | 0x20;
    let args = [page, 4096, sys::PROT_READ | sys::PROT_WRITE, FIXED_PRIVATE_ANONYMOUS, usize::MAX, 0];
    // SAFETY: only this process's copy changes, at a page that could not be used.
    let mapped = page >= 65536 && unsafe { sys::call(nr::MMAP, args) }.is_ok();
    if !mapped || REPAIRED.fetch_add(1, Relaxed) > 1 << 20 {
        if let Some(shared) = ledger::get() {
            shared.ledger.errno.store(14, Relaxed);
        }
        // SAFETY: ends this process.
        unsafe { sys::syscall(nr::EXIT_GROUP, [Step::Scan as usize, 0, 0, 0, 0, 0]) };
    }
}
