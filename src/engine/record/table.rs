//! The lock-sharded table: address -> what a live map cell has no room for (its size, whether it was sampled).
//!
//! Called from inside malloc, for sampled blocks and for blocks whose slack does not fit their cell; never from free: the
//! live map's cell is the truth, and the record of a block that is gone is overwritten by the next one at its address, or
//! swept when its shard grows. The snapshot child reads it without locks.
#![allow(unsafe_code)] // the child reads shards without their locks; fork holds them by hand

use super::live_map::LiveMap;
use crate::arena::{self, Zeroed};
use crate::lock::{Lock, RawFutex};
use crate::sync::{AtomicU64, AtomicUsize};
use core::sync::atomic::{Ordering::AcqRel, Ordering::Acquire, Ordering::Relaxed};
use lock_api::RawMutex;

const SHARDS: usize = 64;
/// Slots that each shard begins with; those of all shards lie in one mapping.
const FIRST_SLOTS: usize = if cfg!(feature = "model") { 2 } else { 32 };

/// What is known of a block. 24 bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Record {
    /// 0: an empty slot.
    pub addr: usize,
    /// As it was asked for.
    pub size: usize,
    /// The cell that it belongs to; a record whose cell has changed is dead.
    pub cell: u32,
    /// 1: the sampler chose it.
    pub sampled: u32,
}

// SAFETY: integers are valid when zero.
unsafe impl Zeroed for Record {}

struct Shard {
    slots: Slots,
    used: usize,
}

/// Where a shard's slots lie, and in the highest byte the logarithm of their number: one word, of which a snapshot never has the half
/// only. 0: none yet.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Slots(usize);

impl Slots {
    const NONE: Self = Self(0);
    const SHIFT: u32 = usize::BITS - 8;

    /// Of slots that are nobody else's; their number is a power of two.
    fn new(slots: &'static mut [Record]) -> Self {
        Self(slots.as_mut_ptr().expose_provenance() | (slots.len().ilog2() as usize) << Self::SHIFT)
    }
    fn len(self) -> usize {
        if self == Self::NONE { 0 } else { 1 << (self.0 >> Self::SHIFT) }
    }
    /// # Safety
    /// They are still mapped, and nobody writes to them.
    unsafe fn all(self) -> &'static [Record] {
        // SAFETY: by this function's own contract.
        unsafe { core::slice::from_raw_parts(self.start(), self.len()) }
    }
    fn start(self) -> *mut Record {
        if self == Self::NONE {
            return core::ptr::NonNull::dangling().as_ptr();
        }
        core::ptr::with_exposed_provenance_mut(self.0 & ((1 << Self::SHIFT) - 1))
    }
}

/// See the module.
pub struct Table {
    shards: [Lock<Shard>; SHARDS],
    /// Where the first slots of all shards lie; 0: not mapped yet.
    first: AtomicUsize,
    dropped: AtomicU64,
}

impl Default for Table {
    fn default() -> Self {
        Self::new()
    }
}

impl Table {
    pub const fn new() -> Self {
        Self {
            shards: [const { Lock::from_raw(<RawFutex as RawMutex>::INIT, Shard { slots: Slots::NONE, used: 0 }) };
                SHARDS],
            first: AtomicUsize::new(0),
            dropped: AtomicU64::new(0),
        }
    }

    /// Records a block. Without memory the record is dropped and counted.
    pub fn note(&self, record: Record, live: &LiveMap) {
        let number = shard_of(record.addr);
        let mut shard = self.shards[number].lock();
        if shard.slots == Slots::NONE {
            shard.slots = self.first_slots(number).map_or(Slots::NONE, Slots::new);
        }
        if shard.used * 4 >= shard.slots().len() * 3 && !shard.grow(live) {
            self.dropped.fetch_add(1, Relaxed);
            return;
        }
        let slot = find(shard.slots(), record.addr);
        let slot = &mut shard.slots()[slot];
        let new = core::mem::replace(slot, record).addr == 0;
        shard.used += usize::from(new);
    }

    /// For the shard of this number, which has none yet, and whose lock is held.
    #[cold]
    fn first_slots(&self, number: usize) -> Option<&'static mut [Record]> {
        const BYTES: usize = FIRST_SLOTS * size_of::<Record>();
        let mut first = self.first.load(Acquire);
        if first == 0 {
            let range = arena::map_for_good(SHARDS * BYTES)?;
            // If another thread was first, this stays unused.
            first = self.first.compare_exchange(0, range.start, AcqRel, Acquire).err().unwrap_or(range.start);
        }
        // SAFETY: zeroed memory for the slots of all shards, never unmapped, of which each takes its own part once.
        Some(unsafe { core::slice::from_raw_parts_mut((first + number * BYTES) as *mut Record, FIRST_SLOTS) })
    }

    /// The record of a block whose cell is `cell`; one that belongs to an earlier block is not given.
    ///
    /// For the snapshot child: takes no lock, since the thread that held it may not exist there.
    pub fn lookup_unlocked(&self, addr: usize, cell: u32) -> Option<Record> {
        // SAFETY: in the child nobody writes; a shard caught in the middle of growing has its old or its new slots, both
        // mapped, and a record caught half written is of a block that has no cell yet.
        let slots = unsafe { (*self.shards[shard_of(addr)].data_ptr()).slots.all() };
        let record = *slots.get(find(slots, addr))?;
        (record.addr == addr && record.cell == cell).then_some(record)
    }

    /// Blocks whose record found no room.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Relaxed)
    }

    /// In the child of a fork: whoever held a shard's lock is not here (or is the interrupted caller of the signal handler that has
    /// forked, and goes on with what he has). What he was at is half done, so that the shard begins anew: sizes of its blocks are
    /// not known any more. No lock is taken ahead of a fork: it may be this thread's own, below a signal handler, or its holder may wait for
    /// a lock of libc's that fork takes.
    ///
    /// # Safety
    /// No other thread is in this process.
    pub unsafe fn forked(&self) {
        for shard in self.shards.iter().filter(|shard| shard.is_locked()) {
            // SAFETY: by this function's own contract; slots that were there before stay mapped.
            unsafe {
                if let Some(slots) = arena::zeroed(FIRST_SLOTS) {
                    *shard.data_ptr() = Shard { slots: Slots::new(slots), used: 0 };
                }
                shard.force_unlock();
            }
        }
    }
}

impl Shard {
    fn slots(&mut self) -> &mut [Record] {
        // SAFETY: the slots are this shard's alone, mapped while they are its, and it is borrowed as long as they are.
        unsafe { core::slice::from_raw_parts_mut(self.slots.start(), self.slots.len()) }
    }

    /// Makes room: sweeps dead records, into twice the slots if most are alive.
    fn grow(&mut self, live: &LiveMap) -> bool {
        let is_live =
            |record: &&Record| record.addr != 0 && live.get(record.addr).is_some_and(|cell| cell.0 == record.cell);
        let alive = self.slots().iter().filter(is_live).count();
        let wanted = (alive * 2).next_power_of_two().max(4 * FIRST_SLOTS);
        let Some(slots) = arena::zeroed_for_now::<Record>(wanted) else { return false };
        for record in self.slots().iter().filter(is_live) {
            let at = find(slots, record.addr);
            slots[at] = *record;
        }
        let old = core::mem::replace(&mut self.slots, Slots::new(slots));
        self.used = alive;
        // The first ones lie among those of the other shards.
        if old.len() > FIRST_SLOTS {
            let start = old.start() as usize;
            let end = start + (old.len() * size_of::<Record>()).next_multiple_of(4096);
            // SAFETY: the old slots are this shard's alone, behind its lock, and are not used again.
            unsafe { arena::unmap(crate::AddrRange::new(start, end)) };
        }
        true
    }
}

const fn mix(addr: usize) -> u64 {
    (addr as u64 >> 4).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

fn shard_of(addr: usize) -> usize {
    (mix(addr) >> 58) as usize
}

/// The slot of `addr`, or the empty one where it would go. The slots are never full, but there may be none.
fn find(slots: &[Record], addr: usize) -> usize {
    let mask = slots.len().wrapping_sub(1);
    let mut at = (mix(addr) >> 20) as usize & mask;
    while at < slots.len() && slots[at].addr != 0 && slots[at].addr != addr {
        at = (at + 1) & mask;
    }
    at
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::live_map::{Cell, Family};

    fn set_up() -> (Table, LiveMap, Cell) {
        let live = LiveMap::new();
        assert!(live.init());
        (Table::new(), live, Cell::new(Family::Malloc, 1, 31, None))
    }

    fn record(addr: usize, cell: Cell) -> Record {
        Record { addr, size: addr / 3, cell: cell.0, sampled: 1 }
    }

    #[test]
    fn the_child_of_a_fork_goes_on_without_a_lock_that_another_thread_held() {
        let (table, live, cell) = set_up();
        let record = |addr| record(addr, cell);
        let addrs = (1..1000usize).map(|i| 0x7000_0000_0000 + i * 64);
        let known = |addr| table.lookup_unlocked(addr, cell.0) == Some(record(addr));
        addrs.clone().for_each(|addr| table.note(record(addr), &live));
        let held = shard_of(0x7000_0000_0040);
        core::mem::forget(table.shards[held].lock());
        // SAFETY: no other thread uses this table.
        unsafe { table.forked() };
        assert!(addrs.clone().all(|addr| known(addr) == (shard_of(addr) != held)));
        addrs.clone().for_each(|addr| table.note(record(addr), &live));
        assert!(addrs.into_iter().all(known));
    }

    #[test]
    fn records_of_live_blocks_are_kept_and_dead_ones_swept() {
        let (table, live, cell) = set_up();
        let record = |addr| record(addr, cell);
        for round in 0..20 {
            for i in 0..10_000 {
                let addr = 0x7000_0000_0000 + round * 0x100_0000 + i * 64;
                assert!(live.set(addr, cell));
                table.note(record(addr), &live);
                if round < 19 {
                    live.take(addr);
                }
            }
        }
        for i in 0..10_000 {
            let addr = 0x7000_0000_0000 + 19 * 0x100_0000 + i * 64;
            assert_eq!(table.lookup_unlocked(addr, cell.0), Some(record(addr)));
            assert_eq!(table.lookup_unlocked(addr, cell.0 ^ 8), None, "the record of an earlier block");
        }
        let slots: usize = table.shards.iter().map(|shard| shard.lock().slots().len()).sum();
        assert!(slots <= 64 * 1024, "{slots} slots for 10,000 live blocks");
        assert_eq!(table.dropped(), 0);
    }
}
