//! What is recorded about each block. Runs inside malloc.
//!
//! The [`Tracker`] is the hot path: a block's cell in the live map says that it lives, of which family it is, when it was
//! born, and where its stack is. What a cell has no room for goes to the table, or to the end of the block itself where that is ours.
#![allow(unsafe_code)] // writes a block's spare bytes

pub mod chunks;
pub mod depot;
pub mod frames;
pub mod index;
pub mod live_map;
pub mod sampler;
pub mod table;
pub mod wanted;

use crate::StackId;
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};
use live_map::{Cell, Family, LiveMap, SLACK_ELSEWHERE};
use table::{Record, Table};

/// Everything known about the program's blocks. One per process.
#[repr(C)] // what is used first lies in the first page
pub struct Tracker {
    pub live: LiveMap,
    pub depot: depot::Depot,
    pub table: Table,
    /// Counts scans; its last two bits go into each cell.
    pub epoch: AtomicU32,
    /// Pointers given to free or realloc that the map does not know.
    pub unknown: AtomicU64,
    /// Blocks that could not be entered for want of memory.
    pub lost: AtomicU64,
    /// Blocks that another allocator than glibc's does not begin at a multiple of 16 bytes: they have no cell of their own.
    pub odd: AtomicU64,
    /// What a block has beyond the size that was asked for is ours, if it is [`SLACK_ELSEWHERE`] bytes or more: its last
    /// [`TRAILER`] bytes hold that size. Set once, before the allocator that it is true for gives its first block.
    pub spare_is_ours: AtomicBool,
}

/// Smaller blocks are one thing each, most of which is written at once.
const SELDOM_PARTLY_WRITTEN: usize = 128;
/// Bytes that a size takes in a block's spare ones.
pub const TRAILER: usize = 4;

impl Default for Tracker {
    fn default() -> Self {
        Self::new()
    }
}

/// A block as the allocator has just given it.
#[derive(Clone, Copy, Debug)]
pub struct New {
    pub addr: usize,
    /// As asked for, and as usable.
    pub size: usize,
    pub usable: usize,
    pub family: Family,
    pub stack: Option<StackId>,
    pub chosen: Chosen,
}

/// Under sampling, whether a block has its stack, and for how many it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Chosen {
    /// It has none; or there is no sampling.
    No,
    /// For others, too.
    Sampled,
    /// All blocks of its size have theirs.
    Wanted,
}

/// What is cleared of new blocks, so that what lay there before keeps nothing.
#[derive(Clone, Copy, Debug)]
pub struct Clear {
    /// The largest block of which anything is; 0: none.
    pub up_to: usize,
}

impl Clear {
    /// A small block is one thing, most of which is written at once, its last word least often: only that is cleared, and what lies
    /// behind it, which counts if the program asks for usable sizes (both are in the last 16 bytes, where sizes are rounded up to as
    /// many). All is of a larger one, if it is recycled.
    ///
    /// # Safety
    /// The block at `addr` is new and the caller's, and has `usable` bytes, `size` of them at least.
    pub unsafe fn block(self, addr: usize, size: usize, usable: usize, is_recycled: impl FnOnce() -> bool) {
        // SAFETY: by this function's own contract.
        unsafe {
            let left = self.begin(addr, size, usable, is_recycled);
            (addr as *mut u8).write_bytes(0, left);
        }
    }

    /// The same, but gives how many bytes from `addr` on are left to be cleared.
    ///
    /// # Safety
    /// As for [`Self::block`].
    #[inline(always)]
    unsafe fn begin(self, addr: usize, size: usize, usable: usize, is_recycled: impl FnOnce() -> bool) -> usize {
        if size > SELDOM_PARTLY_WRITTEN {
            return if is_recycled() && size <= self.up_to { usable } else { 0 };
        }
        if usable >= 16 {
            // SAFETY: by this function's own contract.
            unsafe { ((addr + usable - 16) as *mut [u64; 2]).write_unaligned([0; 2]) };
        }
        0
    }

    /// What realloc has added to a block that had `old` usable bytes: of larger ones, too, since so many were copied.
    ///
    /// # Safety
    /// As for [`Self::block`], and nobody has used what lies beyond `old`.
    pub unsafe fn grown(self, addr: usize, old: usize, usable: usize, is_recycled: impl FnOnce() -> bool) {
        if usable > SELDOM_PARTLY_WRITTEN && usable <= self.grown_up_to() && is_recycled() {
            // SAFETY: by this function's own contract.
            unsafe { ((addr + old) as *mut u8).write_bytes(0, usable.saturating_sub(old)) };
        }
    }

    pub const fn grown_up_to(self) -> usize {
        8 * self.up_to
    }
}

impl Tracker {
    pub const fn new() -> Self {
        Self {
            live: LiveMap::new(),
            depot: depot::Depot::new(),
            table: Table::new(),
            epoch: AtomicU32::new(0),
            unknown: AtomicU64::new(0),
            lost: AtomicU64::new(0),
            odd: AtomicU64::new(0),
            spare_is_ours: AtomicBool::new(false),
        }
    }

    /// A block is born.
    pub fn on_alloc(&self, new: New) {
        if !new.addr.is_multiple_of(16) {
            self.odd.fetch_add(1, Relaxed);
            return;
        }
        let slack = new.usable.wrapping_sub(new.size);
        let elsewhere = new.chosen == Chosen::Sampled || slack >= SLACK_ELSEWHERE as usize;
        let slack = if elsewhere { SLACK_ELSEWHERE } else { slack as u32 };
        let cell = Cell::new(new.family, self.epoch.load(Relaxed), slack, new.stack);
        // First, since the record of a block that was here before may look as if it were this one's: another size, the same cell.
        if elsewhere {
            self.note(new.addr, new.size, new.usable, new.chosen, cell);
        }
        if !self.live.set(new.addr, cell) {
            self.lost.fetch_add(1, Relaxed);
            return;
        }
        if new.size > SELDOM_PARTLY_WRITTEN {
            // Of the first block of a leaf nobody has noted yet how far it reaches.
            self.live.is_recycled(new.addr, new.size);
        }
    }

    /// The same in fewer instructions, for a block that was not chosen, and of which all fits in its cell (or, if `SPARE` says that its
    /// spare bytes are ours, there). `None` if it does not: then nothing is done. `clear`: which blocks are cleared; gives how many
    /// bytes of this one still have to be, which is the last thing that its maker does.
    ///
    /// # Safety
    /// As for [`LiveMap::set_ready`]; `SPARE` only where [`Self::spare_is_ours`].
    #[inline(always)]
    pub unsafe fn on_alloc_ready<const SPARE: bool>(&self, new: New, clear: Clear) -> Option<usize> {
        // SAFETY: by this function's own contract.
        let place = unsafe { self.live.place_ready(new.addr) }?;
        let slack = new.usable.wrapping_sub(new.size);
        let is_elsewhere = slack >= SLACK_ELSEWHERE as usize;
        if is_elsewhere && (!SPARE || new.size > u32::MAX as usize) {
            return None;
        }
        let mut left = 0;
        if clear.up_to != 0 {
            // SAFETY: the block is new, and the caller's, with all of its usable bytes.
            left = unsafe { clear.begin(new.addr, new.size, new.usable, || place.is_recycled(new.size)) };
        }
        if is_elsewhere {
            // SAFETY: the block is new, the caller's, and has so many bytes that nobody has asked for.
            unsafe { trailer(new.addr, new.usable).write_unaligned(new.size as u32) };
            left = left.saturating_sub(TRAILER);
        }
        let slack = slack.min(SLACK_ELSEWHERE as usize) as u32;
        place.set(Cell::new(new.family, self.epoch.load(Relaxed), slack, new.stack));
        Some(left)
    }

    /// What has no room in a cell. A block that was chosen has a record, so that those are found again.
    fn note(&self, addr: usize, size: usize, usable: usize, chosen: Chosen, cell: Cell) {
        if chosen == Chosen::No
            && self.spare_is_ours.load(Relaxed)
            && let Ok(size) = u32::try_from(size)
        {
            // SAFETY: the block is new, the caller's, and has so many bytes that nobody has asked for.
            return unsafe { trailer(addr, usable).write_unaligned(size) };
        }
        let sampled = u32::from(chosen == Chosen::Sampled);
        self.table.note(Record { addr, size, cell: cell.0, sampled }, &self.live);
    }

    /// Under sampling, whether a block with a stack stands for others, too; not if all of its size had their stacks recorded. For
    /// the snapshot child.
    pub fn stands_for_others(&self, addr: usize, cell: Cell) -> bool {
        // A sampled block has a record; one that has lost it had its slack no room in the cell, or was sampled.
        cell.slack() == SLACK_ELSEWHERE
            && self.table.lookup_unlocked(addr, cell.0).is_none_or(|record| record.sampled != 0)
    }

    /// The size that was asked for, if it is known. For the snapshot child.
    pub fn requested(&self, addr: usize, cell: Cell, usable: usize) -> Option<usize> {
        match cell.slack() {
            SLACK_ELSEWHERE => match self.table.lookup_unlocked(addr, cell.0) {
                Some(record) => Some(record.size),
                None if self.spare_is_ours.load(Relaxed) => {
                    // SAFETY: a live block, whose last bytes were written when it was born.
                    let size = unsafe { trailer(addr, usable).read_unaligned() } as usize;
                    (size + SLACK_ELSEWHERE as usize <= usable).then_some(size)
                }
                None => None,
            },
            slack => usable.checked_sub(slack as usize),
        }
    }
}

const fn trailer(addr: usize, usable: usize) -> *mut u32 {
    (addr + usable - TRAILER) as *mut u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_block_of_a_leaf_leaves_recycled_memory_too() {
        let tracker = Tracker::new();
        assert!(tracker.live.init());
        let (addr, size) = (0x7000_0000_0000, 3000);
        let new = New { addr, size, usable: 3008, family: Family::Malloc, stack: None, chosen: Chosen::No };
        // SAFETY: nothing is written to a block without a place for its cell.
        let entered = unsafe { tracker.on_alloc_ready::<false>(new, Clear { up_to: 8192 }) };
        assert_eq!(entered, None, "there is a leaf already");
        tracker.on_alloc(new);
        assert!(tracker.live.take(addr).is_some());
        assert!(tracker.live.is_recycled(addr + 64, 2000));
        assert!(!tracker.live.is_recycled(addr + 8192, 2000), "nothing was here before");
    }
}
