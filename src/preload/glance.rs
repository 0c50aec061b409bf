//! The glance: at the end of a small program with one thread, whether pointers from its registers, its stack, its thread-local
//! storage and its files' data reach every block. Mostly they do, and then a scan has nothing to find: no child is made, no map is
//! read, no word is looked at twice.
//!
//! These are a part of the roots of a scan, read no less strictly, so that what is reached here would be reached there. Where a
//! block is not, or anything is unusual, the answer is "not known", and the scan is made. Measured: a third of
//! what the last scan of `/bin/cat` takes.
//!
//! There is no child here whose faults are repaired: a program may have closed pages of its heap, or written over a chunk's header,
//! so nothing is read before the kernel has said that it can be, and no further than that.
#![allow(unsafe_code)] // reads the program's memory

use crate::child::Sizes;
use crate::keys::Keys;
use crate::settings::Settings;
use crate::snapshot::Job;
use crate::state::{FOREIGN_ALLOCATOR, TRACKER};
use crate::{alternate, bundled, contexts, deepbind, misuse, own, pools, regions, symbols, threads, tls};
use core::sync::atomic::Ordering::Relaxed;
use leakscan_engine::AddrRange;
use leakscan_engine::record::live_map::{Cell, LEAF_SPAN};
use leakscan_engine::scan::blocks::{Blocks, SizeOf};
use leakscan_engine::scan::mark::{How, Marker};
use leakscan_engine::scan::resident::Pages;
use leakscan_engine::sys::{self, nr};
use leakscan_report::Stats;

/// Beyond this a scan is not much dearer than what it saves.
const BLOCKS: usize = 1 << 14;
const BYTES: usize = 4 << 20;

/// What is there, if all of it is reached; `None`: not known.
///
/// The caller is the only thread, stands on its own stack, and lets no signal in.
pub fn all_is_reached(job: &Job, settings: &Settings) -> Option<Stats> {
    let options = &settings.options;
    let every_root = options.use_globals && options.use_stacks && options.use_registers && options.use_tls;
    let usual = every_root
        && !options.possible
        && options.forget == 0
        && job.caller.tid == job.pid
        && !FOREIGN_ALLOCATOR.load(Relaxed)
        && deepbind::LOADED.load(Relaxed) == 0
        && threads::stacks().next().is_none()
        && alternate::stacks().next().is_none()
        && misuse::all().next().is_none()
        && !contexts::exist()
        && !regions::GIVEN_BACK.load(Relaxed);
    if !usual {
        return None;
    }
    let stats = Stats { threads: 1, threads_stopped: 1, ..Stats::default() };
    if TRACKER.live.leaves().next().is_none() {
        return Some(stats);
    }
    let mut pages = Pages::open()?;
    let sizes = Guarded::default();
    let mut blocks = Blocks::build(&TRACKER.live, &sizes, &mut pages)?;
    if blocks.count > BLOCKS || sizes.closed.get() {
        return None;
    }
    // Those that were asked for were those of each leaf's last block; all others lie below it.
    sizes.readable.set(true);
    let mut room = Room(BYTES);
    for range in blocks.ranges() {
        let inside = || blocks.iter().filter(|block| block / LEAF_SPAN == range.start / LEAF_SPAN);
        if bundled::heap().contains(range.start) && bundled::heap().contains(range.end) {
            take_each(&mut room, inside())?;
        } else {
            let last = inside().last()?;
            let end = last + blocks.usable(last);
            room.take(AddrRange::new(range.start - 16, end))?;
            // Neither do damaged headers lead out of what may be read.
            if !inside().all(|block| block + blocks.usable(block) <= end) {
                return None;
            }
        }
    }
    // What is nobody's any more would be read.
    if pools::are_known()
        || Keys::find().is_some_and(|keys| keys.were_deleted() && keys.stale(job.caller.tls).next().is_some())
    {
        return None;
    }
    let live_blocks = blocks.count as u64;
    let mut marker = Marker::new(&mut blocks);
    job.caller.registers.iter().for_each(|word| marker.root_word(*word));
    let mut reading = Reading { marker, room, live_blocks };
    read_roots(job, &mut reading)?;
    let Marker { reached, possibly, root_bytes, starved, .. } = reading.marker;
    if starved || blocks.unmarked().next().is_some() {
        return None;
    }
    Some(Stats {
        live_blocks,
        live_bytes: reached.bytes,
        reachable_blocks: reached.blocks,
        reachable_bytes: reached.bytes,
        possible_blocks: possibly.blocks,
        possible_bytes: possibly.bytes,
        root_bytes,
        ..stats
    })
}

/// Takes blocks of the bundled heap, in order, whose slabs lie far apart: what is between them was never touched, and is not to be.
fn take_each(room: &mut Room, blocks: impl Iterator<Item = usize>) -> Option<()> {
    const NEAR: usize = 4096;
    let mut run = AddrRange::new(0, 0);
    for block in blocks {
        let end = block + bundled::heap().usable(block)?;
        if block - run.end > NEAR && !run.is_empty() {
            room.take(run)?;
            run = AddrRange::new(0, 0);
        }
        run = AddrRange::new(if run.is_empty() { block } else { run.start }, end);
    }
    if run.is_empty() { Some(()) } else { room.take(run) }
}

/// Until all blocks are reached. `None`: something cannot be read.
fn read_roots<S: SizeOf>(job: &Job, reading: &mut Reading<'_, '_, S>) -> Option<()> {
    let stack = tls::current()?.stack.get();
    if reading.read(AddrRange::new(job.caller.sp, stack.high), false)? {
        return Some(());
    }
    let mut storage = 0;
    for file in symbols::files().filter(|file| !own::holds(file.dynamic())) {
        let segments = file.segments()?;
        for range in segments.writable() {
            // Exact, as libc's must be: its lists of free blocks point to their neighbours.
            if reading.read(range, true)? {
                return Some(());
            }
        }
        storage += segments.thread_local();
    }
    reading.read(threads::storage(job.caller.tls, storage), false)?;
    // What only pointers to the inside reach.
    reading.marker.drain();
    Some(())
}

/// Sizes by headers and last bytes that may lie in pages which the program has closed.
#[derive(Default)]
struct Guarded {
    /// They do not: it was asked.
    readable: core::cell::Cell<bool>,
    /// One did.
    closed: core::cell::Cell<bool>,
}

impl Guarded {
    fn can_read(&self, addr: usize) -> bool {
        let can = self.readable.get() || sys::peek::<1>(addr).is_some();
        if !can {
            self.closed.set(true);
        }
        can
    }

    /// Where the size that was asked for may stand.
    fn can_read_end(&self, addr: usize, cell: Cell) -> bool {
        let usable = self.usable(addr, cell);
        usable != 0 && self.can_read(addr + usable - 8)
    }
}

impl SizeOf for Guarded {
    fn usable(&self, addr: usize, cell: Cell) -> usize {
        // Those of the bundled heap have no header.
        if bundled::heap().contains(addr) || self.can_read(addr - 8) { Sizes.usable(addr, cell) } else { 0 }
    }

    fn requested(&self, addr: usize, cell: Cell) -> usize {
        if self.can_read_end(addr, cell) { Sizes.requested(addr, cell) } else { 0 }
    }

    fn extent(&self, addr: usize, cell: Cell) -> usize {
        if self.can_read_end(addr, cell) { Sizes.extent(addr, cell) } else { 0 }
    }
}

/// How many bytes may still be read.
struct Room(usize);

impl Room {
    /// Whether the range may be read: that it is not too much, and that the kernel can read all of it.
    fn take(&mut self, range: AddrRange) -> Option<()> {
        const MADV_POPULATE_READ: usize = 22;
        self.0 = self.0.checked_sub(range.len())?;
        let start = range.start & !4095;
        let len = range.end.next_multiple_of(4096) - start;
        // SAFETY: brings the pages in as reading them would, or fails where that would fault.
        unsafe { sys::call(nr::MADVISE, [start, len, MADV_POPULATE_READ, 0, 0, 0]) }.is_ok().then_some(())
    }
}

struct Reading<'b, 'a, S: SizeOf> {
    marker: Marker<'b, 'a, S>,
    room: Room,
    live_blocks: u64,
}

impl<S: SizeOf> Reading<'_, '_, S> {
    /// Takes a range for roots; true if all blocks are reached by pointers to their starts.
    fn read(&mut self, range: AddrRange, exact_only: bool) -> Option<bool> {
        self.room.take(range)?;
        // SAFETY: readable, as `take` has found; the only thread is here, so that it stays so.
        unsafe { self.marker.root_range(range, How { exact_only, unaligned: false }) };
        self.marker.follow();
        Some(self.marker.reached.blocks == self.live_blocks)
    }
}
