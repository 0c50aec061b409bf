//! Live map: every block that the program owns now, one 16-bit half cell per 16 bytes of address space.
//!
//! Called from inside malloc and free on any thread: a block's cell is one plain 32-bit store by its owner, no lock, no
//! read-modify-write. The snapshot child reads it without locking; since a thread is stopped between instructions, it sees
//! a whole cell or none.
//!
//! A block owns at least two half cells (glibc's smallest chunk is 32 bytes; for other allocators the door asks for 17
//! bytes at least), which hold, low half first:
//!
//! ```text
//!   15            4 3   2 1  0    15            6 5   1  0
//!  +---------------+-----+--+--+ +---------------+-----+--+
//!  | id, low 11    |epoch|fa|1 | | id, high 10   |slack|0 |    fa: family, 2 bits
//!  +---------------+-----+--+--+ +---------------+-----+--+
//! ```
//!
//! Bit 0 of a half tells a block's start from its second half, so a scan needs no context. Two bytes a cell were chosen over
//! one byte and an 8-byte trailer in the block: the same time, and the program's blocks stay as they are.
#![allow(unsafe_code)] // writes cells of mapped leaves

use crate::sync::AtomicUsize;
use crate::{AddrRange, StackId, arena, sys};
use core::sync::atomic::Ordering;

/// Which call family made a block; who may free it follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Family {
    /// malloc, calloc, realloc, memalign and their like: free.
    Malloc = 0,
    /// operator new: operator delete.
    New = 1,
    /// operator new[]: operator delete[].
    NewArray = 2,
    /// operator new with an alignment: operator delete with one.
    NewAligned = 3,
}

impl Family {
    /// By its number's lowest two bits.
    #[inline(always)]
    pub const fn of(number: u32) -> Self {
        match number & 3 {
            0 => Family::Malloc,
            1 => Family::New,
            2 => Family::NewArray,
            _ => Family::NewAligned,
        }
    }
}

/// What is known of a live block without looking further.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cell(pub u32);

/// The slack (usable less requested size) that says: the size is in the side table, or unknown.
pub const SLACK_ELSEWHERE: u32 = 31;
/// Stack ids beyond this cannot be told from each other in a cell.
pub const MAX_STACKS: u32 = (1 << 21) - 1;

impl Cell {
    /// `slack` and `stack` are cut to their widths: 5 and 21 bits; `epoch` to 2.
    pub fn new(family: Family, epoch: u32, slack: u32, stack: Option<StackId>) -> Self {
        let id = stack.map_or(0, StackId::get) & MAX_STACKS;
        let low = 1 | (family as u32) << 1 | (epoch & 3) << 3 | (id & 0x7ff) << 5;
        let high = slack.min(SLACK_ELSEWHERE) << 1 | (id >> 11) << 6;
        Self(low | high << 16)
    }
    pub fn family(self) -> Family {
        Family::of(self.0 >> 1)
    }
    /// The scan interval in which the block was born, modulo 4.
    pub const fn epoch(self) -> u32 {
        self.0 >> 3 & 3
    }
    /// Usable less requested bytes, or [`SLACK_ELSEWHERE`].
    pub const fn slack(self) -> u32 {
        self.0 >> 17 & 31
    }
    /// The same of a block all of whose usable bytes count: its size may be changing.
    pub const fn without_slack(self) -> Self {
        Self(self.0 & !(31 << 17))
    }
    pub fn stack(self) -> Option<StackId> {
        StackId::new(self.0 >> 5 & 0x7ff | (self.0 >> 22) << 11)
    }
    const fn is_start(self) -> bool {
        self.0 & 1 == 1
    }
}

/// Bytes of address space per leaf.
pub const LEAF_SPAN: usize = 1 << LEAF_SHIFT;
const LEAF_SHIFT: u32 = 26;
/// Half cells per leaf.
pub const LEAF_CELLS: usize = LEAF_SPAN / 16;
const ROOT_SLOTS: usize = 1 << (sys::USER_BITS - LEAF_SHIFT);
/// A cell at the last 16 bytes of a leaf reaches 2 bytes beyond; nobody reads them. Then, in the last 24 bytes: how far, in bytes of
/// cells, memory was part of a block, the leaf that was made before this one (0: none), and the first address that this one covers.
const LEAF_BYTES: usize = LEAF_CELLS * 2 + 32;
const HIGH: usize = LEAF_BYTES - 24;
const LINK: usize = LEAF_BYTES - 16;

/// Where the cell of a new block is to stand.
pub struct Place {
    cell: *mut u32,
    leaf: usize,
}

impl Place {
    #[inline(always)]
    pub fn set(&self, cell: Cell) {
        // SAFETY: it lies in the leaf's LEAF_BYTES; the two half cells belong to the block, which is 32 bytes at least and the caller's own,
        // so no other thread writes them.
        unsafe { self.cell.write_unaligned(cell.0) };
    }

    /// Whether the memory from here on, of which the new block takes so many bytes, was part of a block before, as far as is known: it
    /// lies below the end of another one, or one has begun here (or 16 bytes before or behind), where what is left of its cell stays.
    /// Notes the end.
    ///
    /// Heaps grow upwards. Where one does not, memory that was never used counts as recycled.
    #[inline(always)]
    pub fn is_recycled(&self, bytes: usize) -> bool {
        // In bytes of cells, so that no pointer to a block's end is left in a register, from where it could come to keep the block.
        let start = self.cell as usize - self.leaf;
        let end = start + bytes / 8;
        // SAFETY: the word lies in the leaf's LEAF_BYTES, on a multiple of 8, and is used as an atomic one only.
        let high = unsafe { &*((self.leaf + HIGH) as *const core::sync::atomic::AtomicUsize) };
        let before = high.load(Ordering::Relaxed);
        // Of two threads' ends one may be lost: then a block is taken for new memory.
        if end > before {
            high.store(end, Ordering::Relaxed);
        }
        // SAFETY: it lies in the leaf's LEAF_BYTES. Where what is asked about ends within 16 bytes, half of it is a neighbour's cell, which its
        // owner may write meanwhile: any value will do.
        start < before || unsafe { self.cell.read_unaligned() != 0 }
    }
}

/// The map. Leaves are made on the first block in their span and stay.
pub struct LiveMap {
    /// Address of the root array: one leaf address per [`LEAF_SPAN`].
    root: AtomicUsize,
    /// The leaf that was made last. A walk through the root would touch all of it: its slots lie terabytes apart.
    last: AtomicUsize,
    /// Subtracted from the highest address of all, so that 0 says "none".
    below_top: AtomicUsize,
    highest: AtomicUsize,
}

impl Default for LiveMap {
    fn default() -> Self {
        Self::new()
    }
}

impl LiveMap {
    pub const fn new() -> Self {
        Self {
            root: AtomicUsize::new(0),
            last: AtomicUsize::new(0),
            below_top: AtomicUsize::new(0),
            highest: AtomicUsize::new(0),
        }
    }

    /// Maps the root. `false` if the kernel refuses. To be called once, before other threads use the map.
    pub fn init(&self) -> bool {
        match arena::map_for_good(ROOT_SLOTS * size_of::<AtomicUsize>()) {
            Some(range) => {
                self.root.store(range.start, Ordering::Release);
                true
            }
            None => false,
        }
    }

    /// There will be blocks around this address. (Of the root's pages those that are read first, and then written, take two page faults.)
    pub fn expect(&self, addr: usize) {
        if let Some(slot) = self.slot(addr >> LEAF_SHIFT) {
            // (An addition of 0 would be compiled to a read.)
            let _ = slot.compare_exchange(0, 0, Ordering::Relaxed, Ordering::Relaxed);
        }
    }

    #[inline]
    fn slot(&self, index: usize) -> Option<&AtomicUsize> {
        let root = self.root.load(Ordering::Relaxed);
        if root == 0 || index >= ROOT_SLOTS {
            return None;
        }
        // SAFETY: `root` is the mapped array of ROOT_SLOTS slots, `index` lies inside; it is never unmapped.
        Some(unsafe { &*(root as *const AtomicUsize).add(index) })
    }

    #[inline]
    fn leaf(&self, addr: usize) -> Option<usize> {
        match self.slot(addr >> LEAF_SHIFT)?.load(Ordering::Acquire) {
            0 => None,
            leaf => Some(leaf),
        }
    }

    /// Marks the block at `addr` (a multiple of 16) as live. `false` if there is no memory for its leaf.
    ///
    /// The caller owns the block: the real allocator has just returned it to this thread.
    #[inline]
    pub fn set(&self, addr: usize, cell: Cell) -> bool {
        // SAFETY: the root is mapped, and the address in user space.
        self.root.load(Ordering::Relaxed) != 0
            && addr >> sys::USER_BITS == 0
            && unsafe { self.set_ready(addr, cell) || self.grow(addr).is_some() && self.set_ready(addr, cell) }
    }

    /// What the map knows of the block that starts at `addr`.
    #[inline]
    pub fn get(&self, addr: usize) -> Option<Cell> {
        if !addr.is_multiple_of(16) {
            return None;
        }
        let at = (self.leaf(addr)? + (addr % LEAF_SPAN) / 16 * 2) as *const u32;
        // SAFETY: `at` lies in the leaf's LEAF_BYTES. For a live block only its owner writes here.
        let cell = Cell(unsafe { at.read_unaligned() });
        cell.is_start().then_some(cell)
    }

    /// Takes the block that starts at `addr` out, if there is one, and gives what is known of it. To be called before the real
    /// free, after which the address may be another thread's.
    #[inline]
    pub fn take(&self, addr: usize) -> Option<Cell> {
        if self.root.load(Ordering::Relaxed) == 0 {
            return None;
        }
        // SAFETY: the root is mapped.
        unsafe { self.take_ready(addr) }
    }

    /// As [`Self::take`], for who knows that there is a root.
    ///
    /// # Safety
    /// [`Self::init`] has succeeded.
    #[inline(always)]
    pub unsafe fn take_ready(&self, addr: usize) -> Option<Cell> {
        // What `addr` has below 16 and beyond user space stands on top of its number of 16 bytes.
        let unit = addr.rotate_right(4);
        if unit >> (sys::USER_BITS - 4) != 0 {
            return None;
        }
        // SAFETY: the root is mapped, and has a slot for each address of user space.
        let leaf = unsafe { self.leaf_ready(addr) };
        if leaf == 0 {
            return None;
        }
        let at = (leaf + unit % LEAF_CELLS * 2) as *mut u32;
        // SAFETY: as in `set_ready`; the caller is freeing the block.
        unsafe {
            let cell = Cell(at.read_unaligned());
            if !cell.is_start() {
                return None;
            }
            // One half is enough: that of the start.
            at.cast::<u16>().write(cell.0 as u16 & !1);
            Some(cell)
        }
    }

    /// As [`Self::set`], where there has been a block nearby. `false` if not: then nothing has been done.
    ///
    /// # Safety
    /// As for [`Self::place_ready`].
    #[inline(always)]
    pub unsafe fn set_ready(&self, addr: usize, cell: Cell) -> bool {
        // SAFETY: by this function's own contract.
        let place = unsafe { self.place_ready(addr) };
        if let Some(place) = &place {
            place.set(cell);
        }
        place.is_some()
    }

    /// The place of a new block's cell, where there has been a block nearby.
    ///
    /// # Safety
    /// [`Self::init`] has succeeded, and `addr` is that of a block in user space which is the caller's own.
    #[inline(always)]
    pub unsafe fn place_ready(&self, addr: usize) -> Option<Place> {
        // SAFETY: by this function's own contract.
        let leaf = unsafe { self.leaf_ready(addr) };
        (leaf != 0).then(|| Place { cell: (leaf + addr / 16 % LEAF_CELLS * 2) as *mut u32, leaf })
    }

    /// [`Place::is_recycled`] from an address of a block that is the caller's.
    pub fn is_recycled(&self, start: usize, bytes: usize) -> bool {
        // SAFETY: the root is mapped.
        self.root.load(Ordering::Relaxed) != 0
            && start >> sys::USER_BITS == 0
            && unsafe { self.place_ready(start) }.is_some_and(|place| place.is_recycled(bytes))
    }

    /// # Safety
    /// As for [`Self::set_ready`].
    #[inline(always)]
    unsafe fn leaf_ready(&self, addr: usize) -> usize {
        // SAFETY: the root has a slot for each address of user space.
        unsafe {
            (*(self.root.load(Ordering::Relaxed) as *const AtomicUsize).add(addr >> LEAF_SHIFT)).load(Ordering::Acquire)
        }
    }

    /// What was known of a block that started at `addr` and was freed, as long as no other is there: a guess, since the middle
    /// of a block that is gone looks alike.
    pub fn ghost(&self, addr: usize) -> Option<Cell> {
        if !addr.is_multiple_of(16) || self.get(addr - 16).is_some() {
            return None;
        }
        let at = (self.leaf(addr)? + (addr % LEAF_SPAN) / 16 * 2) as *const u32;
        // SAFETY: `at` lies in the leaf's LEAF_BYTES; whatever another thread writes meanwhile, any value will do.
        let cell = unsafe { at.read_unaligned() };
        (cell & 0xffff != 0 && cell & 1 == 0).then_some(Cell(cell | 1))
    }

    #[cold]
    #[inline(never)]
    fn grow(&self, addr: usize) -> Option<usize> {
        let slot = self.slot(addr >> LEAF_SHIFT)?;
        // Behind a leaf that is in use to its end (a heap that grows) large pages save a tenth of the copying at each snapshot.
        let leaf = if self.ends_in_use(addr.wrapping_sub(LEAF_SPAN)) {
            arena::map_large(LEAF_BYTES)?
        } else {
            arena::map_for_good(LEAF_BYTES)?
        }
        .start;
        match slot.compare_exchange(0, leaf, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => {
                let base = addr & !(LEAF_SPAN - 1);
                self.below_top.fetch_max(usize::MAX - base, Ordering::Relaxed);
                self.highest.fetch_max(base + LEAF_SPAN, Ordering::Relaxed);
                self.list(leaf, base);
                Some(leaf)
            }
            // What was mapped stays unused.
            Err(other) => Some(other),
        }
    }

    /// Whether there are blocks at the end of the leaf that covers `addr`.
    fn ends_in_use(&self, addr: usize) -> bool {
        const LAST: usize = 512;
        self.leaf(addr).is_some_and(|leaf| {
            let words = (leaf + LEAF_CELLS * 2 - LAST * 8) as *const u64;
            // SAFETY: the words lie in the leaf; other threads may write them meanwhile, and any value will do.
            (0..LAST).any(|i| unsafe { words.add(i).read_volatile() } != 0)
        })
    }

    /// Adds a leaf to the list.
    fn list(&self, leaf: usize, base: usize) {
        let link = (leaf + LINK) as *mut usize;
        let mut before = self.last.load(Ordering::Relaxed);
        loop {
            // SAFETY: the two words are the leaf's last, and nobody reads them before it is listed.
            unsafe {
                link.write(before);
                link.add(1).write(base);
            }
            match self.last.compare_exchange_weak(before, leaf, Ordering::Release, Ordering::Relaxed) {
                Ok(_) => return,
                Err(other) => before = other,
            }
        }
    }

    /// The first address that each leaf covers, in no order.
    pub fn leaves(&self) -> impl Iterator<Item = usize> + '_ {
        let mut next = self.last.load(Ordering::Acquire);
        core::iter::from_fn(move || {
            let leaf = next;
            if leaf == 0 {
                return None;
            }
            // SAFETY: a listed leaf has LEAF_BYTES mapped bytes, is never unmapped, and its last two words are written.
            unsafe {
                let link = (leaf + LINK) as *const usize;
                next = link.read();
                Some(link.add(1).read())
            }
        })
    }

    /// The [`LEAF_CELLS`] half cells of the leaf that covers `base`. For the snapshot child, where nothing writes them.
    pub fn cells(&self, base: usize) -> Option<&'static [u16]> {
        // SAFETY: a leaf has LEAF_BYTES mapped bytes and is never unmapped.
        self.leaf(base).map(|leaf| unsafe { core::slice::from_raw_parts(leaf as *const u16, LEAF_CELLS) })
    }

    /// The span of addresses in which blocks can lie.
    pub fn span(&self) -> AddrRange {
        AddrRange::new(usize::MAX - self.below_top.load(Ordering::Relaxed), self.highest.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn neighbours_of_32_bytes_keep_their_cells_apart() {
        let map = LiveMap::new();
        assert!(map.init());
        let cell = |id| Cell::new(Family::NewArray, 3, 30, StackId::new(id));
        for i in 0..1000u32 {
            assert!(map.set(0x5555_0000_0010 + i as usize * 32, cell(i + MAX_STACKS - 1000)));
        }
        for i in (0..1000).step_by(2) {
            assert!(map.take(0x5555_0000_0010 + i * 32).is_some());
        }
        for i in 0..1000u32 {
            let addr = 0x5555_0000_0010 + i as usize * 32;
            assert_eq!(map.get(addr), (i % 2 == 1).then(|| cell(i + MAX_STACKS - 1000)));
            assert_eq!(map.get(addr + 16), None, "a second half is no start");
            assert_eq!(map.get(addr + 8), None);
            assert_eq!(
                map.ghost(addr),
                (i % 2 == 0).then(|| cell(i + MAX_STACKS - 1000)),
                "what was freed leaves its cell"
            );
            assert_eq!(map.ghost(addr + 16).is_some(), i % 2 == 0);
        }
        assert_eq!(map.take(0x7000_0000_0000), None);
    }

    #[test]
    fn leaves_are_listed_and_hold_the_cells() {
        let map = LiveMap::new();
        assert!(map.init());
        assert_eq!(map.leaves().count(), 0);
        for addr in [0x7fff_f000_0000, 0x10_0000, 0x10_0000 + LEAF_SPAN, 0x7fff_ffff_ffe0] {
            assert!(map.set(addr, Cell::new(Family::Malloc, 0, 0, None)));
        }
        let mut bases: Vec<_> =
            map.leaves().map(|base| (base, map.cells(base).unwrap().iter().filter(|c| **c & 1 == 1).count())).collect();
        bases.sort_unstable();
        assert_eq!(bases, [(0, 1), (LEAF_SPAN, 1), (0x7fff_f000_0000, 1), (0x7fff_fc00_0000, 1)]);
    }

    #[test]
    fn addresses_outside_user_space_are_refused() {
        let map = LiveMap::new();
        assert!(map.init());
        assert!(!map.set(1 << sys::USER_BITS, Cell::new(Family::Malloc, 0, 0, None)));
        assert_eq!(map.get(usize::MAX & !15), None);
    }

    proptest! {
        #[test]
        fn a_cell_holds_its_fields(id in 0..=MAX_STACKS, epoch in 0u32..4, slack in 0u32..32) {
            for family in [Family::Malloc, Family::New, Family::NewArray, Family::NewAligned] {
                let cell = Cell::new(family, epoch, slack, StackId::new(id));
                prop_assert!(cell.is_start() && cell.0 >> 16 & 1 == 0);
                prop_assert_eq!((cell.family(), cell.epoch(), cell.slack()), (family, epoch, slack));
                prop_assert_eq!(cell.stack(), StackId::new(id));
            }
        }
    }
}
