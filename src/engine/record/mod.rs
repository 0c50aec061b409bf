//! What is recorded about each block. Runs inside malloc.
//!
//! The [`Tracker`] is the hot path: a block's cell in the live map says that it lives, of which family it is, when it was
//! born, and where its stack is. What a cell has no room for goes to the table.

pub mod chunks;
pub mod depot;
pub mod frames;
pub mod index;
pub mod live_map;
pub mod sampler;
pub mod table;
pub mod wanted;

use crate::StackId;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use live_map::{Cell, Family, LiveMap, SLACK_ELSEWHERE};
use table::{Record, Table};

/// Everything known about the program's blocks. One per process.
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
}

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
    /// Its record is to be kept in the table: it was sampled.
    pub sampled: bool,
    pub tid: u32,
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
        }
    }

    /// A block is born.
    #[inline]
    pub fn on_alloc(&self, new: New) {
        let slack = new.usable.wrapping_sub(new.size);
        let elsewhere = new.sampled || slack >= SLACK_ELSEWHERE as usize;
        let slack = if elsewhere { SLACK_ELSEWHERE } else { slack as u32 };
        let cell = Cell::new(new.family, self.epoch.load(Relaxed), slack, new.stack);
        if !self.live.set(new.addr, cell) {
            self.lost.fetch_add(1, Relaxed);
        } else if elsewhere {
            self.note(new.addr, new.size, new.tid, new.sampled, cell);
        }
    }

    #[cold]
    #[inline(never)]
    fn note(&self, addr: usize, size: usize, tid: u32, sampled: bool, cell: Cell) {
        let time = crate::sys::clock_ns(crate::sys::CLOCK_REALTIME) / 1_000_000_000;
        let sampled = u32::from(sampled);
        self.table.note(Record { addr, size, time: time as u32, sampled, tid, cell: cell.0 }, &self.live);
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
            SLACK_ELSEWHERE => self.table.lookup_unlocked(addr, cell.0).map(|record| record.size),
            slack => usable.checked_sub(slack as usize),
        }
    }
}
