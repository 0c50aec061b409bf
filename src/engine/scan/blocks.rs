//! Address -> block, for the snapshot: built in one pass over the live map, then constant-time, interior pointers included.
//!
//! Per leaf (64 MiB of addresses) a start bitmap, one bit per 16 bytes, and a mark bitmap of the same shape. Where a word of
//! starts is empty, the mark word of the same place holds the distance back to the last word that is not: the block that an
//! interior pointer points into is found without a search (measured: 0.3 ms to build per million blocks).

use super::resident::Pages;
use super::roots::Resident;
use crate::AddrRange;
use crate::arena::{self, List};
use crate::record::live_map::{Cell, LEAF_SPAN, LiveMap};

/// Bytes of addresses that a word of a bitmap stands for.
const WORD_SPAN: usize = 64 * 16;
/// A program's own mappings lie between the allocator's: what points there is told by granules, at less cost than by blocks.
const GRANULE: usize = 64 << 10;
const ROOT: usize = (1 << crate::sys::USER_BITS) / LEAF_SPAN;

/// How large a block is, by the allocator's own bookkeeping.
pub trait SizeOf {
    /// Usable bytes of the live block at `addr`; 0 if that cannot be told.
    fn usable(&self, addr: usize, cell: Cell) -> usize;

    /// The size that the program asked for, where that is known, else the usable one.
    fn requested(&self, addr: usize, cell: Cell) -> usize {
        self.usable(addr, cell)
    }

    /// The bytes that may hold the program's pointers, and that a pointer may point into.
    fn extent(&self, addr: usize, cell: Cell) -> usize {
        self.requested(addr, cell)
    }

    /// Requested size and extent.
    fn both(&self, addr: usize, cell: Cell) -> (usize, usize) {
        (self.requested(addr, cell), self.extent(addr, cell))
    }
}

/// Where in a block a pointer points.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    Start,
    /// Inside, or one past the end.
    Interior,
}

struct Leaf {
    base: usize,
    /// What the bitmaps' first word stands for: they reach over the cells that were ever written.
    from: usize,
    starts: &'static [u64],
    marks: &'static mut [u64],
    /// A second mark per block: reached only through interior pointers, or claimed by a leader.
    extra: &'static mut [u64],
    /// The first and the last word that are not empty.
    first: usize,
    last: usize,
    /// The end of the last block, and whether the last block of an earlier leaf reaches into this one.
    end: usize,
    entered: bool,
    /// A bit for each granule of the leaf that a block or its end lies in.
    granules: [u64; LEAF_SPAN / GRANULE / 64],
}

/// In the root: no block starts here, but one from below reaches in.
const PASSED: u16 = u16::MAX;

/// See the module.
pub struct Blocks<'a, S: SizeOf> {
    live: &'a LiveMap,
    sizes: &'a S,
    /// In the order of addresses.
    leaves: &'static mut [Option<Leaf>],
    /// Address / LEAF_SPAN -> index in `leaves` + 1, or [`PASSED`], or 0 where there is no block.
    root: &'static mut [u16],
    used: usize,
    /// Lowest start, and the span from there to the end of the highest block.
    low: usize,
    span: usize,
    /// See [`Blocks::shorten`]: a block, and its extent.
    short: (usize, usize),
    pub count: usize,
}

impl<'a, S: SizeOf> Blocks<'a, S> {
    /// Builds the index. `None` if there is no memory for it.
    pub fn build(live: &'a LiveMap, sizes: &'a S, pages: &mut Pages) -> Option<Self> {
        let mut bases: List<usize> = List::new();
        for base in live.leaves() {
            bases.push(base).then_some(())?;
        }
        bases.sort_unstable();
        let leaves = leaf_slots(bases.len())?;
        let root = arena::zeroed::<u16>(ROOT)?;
        let mut blocks =
            Blocks { live, sizes, leaves, root, used: 0, low: usize::MAX, span: 0, short: (0, 0), count: 0 };
        for (base, cells) in bases.iter().filter_map(|base| Some((*base, live.cells(*base)?))) {
            let Some(mut leaf) = build_leaf(base, cells, pages, &mut blocks.count)? else { continue };
            let last = start_in(&leaf, leaf.last, leaf.starts[leaf.last]);
            leaf.end = last + blocks.extent(last);
            leaf.entered = blocks.root[base / LEAF_SPAN] == PASSED;
            let before = blocks.ranges().last().map_or(0, |range| range.end);
            leaf.set_granules(before, |block| block + blocks.extent(block));
            let slot = blocks.used;
            blocks.root[base / LEAF_SPAN] = u16::try_from(slot + 1).ok().filter(|slot| *slot != PASSED)?;
            // Leaves come in the order of addresses, so those that it reaches into are still to come.
            let reached = base / LEAF_SPAN + 1..leaf.end / LEAF_SPAN + 1;
            blocks.root.get_mut(reached).into_iter().for_each(|passed| passed.fill(PASSED));
            blocks.leaves[slot] = Some(leaf);
            blocks.used += 1;
        }
        let low = blocks.ranges().next().map_or(usize::MAX, |range| range.start);
        let high = blocks.ranges().last().map_or(low, |range| range.end + 1);
        (blocks.low, blocks.span) = (low, high - low);
        Some(blocks)
    }

    pub fn usable(&self, addr: usize) -> usize {
        self.live.get(addr).map_or(0, |cell| self.sizes.usable(addr, cell))
    }

    pub fn requested(&self, addr: usize) -> usize {
        self.live.get(addr).map_or(0, |cell| self.sizes.requested(addr, cell))
    }

    /// Requested size and extent.
    #[inline(always)]
    pub fn both(&self, addr: usize) -> (usize, usize) {
        let (requested, extent) = self.live.get(addr).map_or((0, 0), |cell| self.sizes.both(addr, cell));
        (requested, if addr == self.short.0 { self.short.1 } else { extent })
    }

    pub fn extent(&self, addr: usize) -> usize {
        if addr == self.short.0 {
            return self.short.1;
        }
        self.live.get(addr).map_or(0, |cell| self.sizes.extent(addr, cell))
    }

    /// Of this block, one at a time, only so many bytes are read, and pointed into.
    pub fn shorten(&mut self, block: usize, extent: usize) {
        self.short = (block, extent);
    }

    pub fn cell(&self, addr: usize) -> Option<Cell> {
        self.live.get(addr)
    }

    /// The lowest start, and how many addresses from there on may lie in blocks.
    pub const fn span(&self) -> (usize, usize) {
        (self.low, self.span)
    }

    /// Whether a word could point to a block at all. (With a program's break far below its mappings all libraries lie in the
    /// span, and half of its words point there.)
    #[inline(always)]
    pub fn near(&self, word: usize) -> bool {
        let Some(&slot) = self.root.get(word / LEAF_SPAN) else { return false };
        match self.leaves.get((slot as usize).wrapping_sub(1)) {
            Some(Some(leaf)) => leaf.granules[word % LEAF_SPAN / GRANULE / 64] >> (word / GRANULE % 64) & 1 != 0,
            _ => slot == PASSED,
        }
    }

    #[inline(always)]
    fn leaf(&self, addr: usize) -> Option<&Leaf> {
        let slot = *self.root.get(addr / LEAF_SPAN)? as usize;
        self.leaves.get(slot.wrapping_sub(1))?.as_ref()
    }

    /// The block that `addr` points to: its start, and where in it.
    #[inline(always)]
    pub fn find(&self, addr: usize) -> Option<(usize, Place)> {
        if addr.is_multiple_of(16) && self.leaf(addr).is_some_and(|leaf| leaf.has(leaf.starts, addr)) {
            return Some((addr, Place::Start));
        }
        self.interior(addr)
    }

    /// Whether a block starts at `addr`.
    #[inline(always)]
    pub fn is_start(&self, addr: usize) -> bool {
        addr.is_multiple_of(16) && self.leaf(addr).is_some_and(|leaf| leaf.has(leaf.starts, addr))
    }

    /// Whether a block starts in the range.
    pub fn start_in(&self, range: AddrRange) -> bool {
        let leaves = self.leaves[..self.used].iter().flatten();
        leaves.filter(|leaf| range.start < leaf.end && leaf.from < range.end).any(|leaf| {
            let from = range.start.saturating_sub(leaf.from) / WORD_SPAN;
            let to = (range.end - leaf.from).div_ceil(WORD_SPAN).min(leaf.starts.len());
            (from..to).any(|word| {
                let at = leaf.from + word * WORD_SPAN;
                let starts = leaf.starts[word];
                starts != 0 && (0..64).any(|bit| starts >> bit & 1 != 0 && range.contains(at + bit * 16))
            })
        })
    }

    fn interior(&self, addr: usize) -> Option<(usize, Place)> {
        let start = self.at_or_below(addr)?;
        // One past the end still points to the block: a loop's end pointer, an empty tail. What the allocator has rounded up
        // is nobody's: its own pointers to the next block's header point there.
        (addr - start <= self.extent(start)).then_some((start, Place::Interior))
    }

    /// The highest start at or below an address, if its block may reach there.
    fn at_or_below(&self, addr: usize) -> Option<usize> {
        if let Some(leaf) = self.leaf(addr) {
            if addr > leaf.end {
                return None;
            }
            if addr >= leaf.from {
                let word = leaf.word_of(addr);
                let up_to = leaf.starts.get(word).map_or(0, |starts| starts & (bit_of(addr) | (bit_of(addr) - 1)));
                if up_to != 0 {
                    return Some(start_in(leaf, word, up_to));
                }
                if word > leaf.first {
                    let before = word - 1;
                    let found = match leaf.starts[before.min(leaf.last)] {
                        0 => before - leaf.marks[before] as usize,
                        _ => before.min(leaf.last),
                    };
                    return Some(start_in(leaf, found, leaf.starts[found]));
                }
            }
            if !leaf.entered {
                return None;
            }
        }
        // Below this leaf's first block: the last block of the nearest leaf below, however far away that is (a program's
        // break lies terabytes below its mappings).
        let base = addr & !(LEAF_SPAN - 1);
        let above = self.leaves[..self.used].partition_point(|leaf| leaf.as_ref().is_some_and(|leaf| leaf.base < base));
        let leaf = self.leaves.get(above.checked_sub(1)?)?.as_ref()?;
        Some(start_in(leaf, leaf.last, leaf.starts[leaf.last]))
    }

    /// Marks a block; true if it was not marked.
    #[inline(always)]
    pub fn mark(&mut self, start: usize) -> bool {
        self.set(start, false)
    }

    /// Sets a block's second mark; true if it was not set.
    pub fn mark_extra(&mut self, start: usize) -> bool {
        self.set(start, true)
    }

    #[inline(always)]
    fn set(&mut self, start: usize, extra: bool) -> bool {
        let Some(&slot) = self.root.get(start / LEAF_SPAN) else { return false };
        let Some(Some(leaf)) = self.leaves.get_mut((slot as usize).wrapping_sub(1)) else { return false };
        let word = leaf.word_of(start);
        let words = if extra { &mut *leaf.extra } else { &mut *leaf.marks };
        let Some(word) = words.get_mut(word) else { return false };
        let fresh = *word & bit_of(start) == 0;
        *word |= bit_of(start);
        fresh
    }

    pub fn is_marked(&self, start: usize) -> bool {
        self.leaf(start).is_some_and(|leaf| leaf.has(leaf.marks, start))
    }

    pub fn is_extra(&self, start: usize) -> bool {
        self.leaf(start).is_some_and(|leaf| leaf.has(leaf.extra, start))
    }

    /// The address of the start word for `addr`, to prefetch; 0 if there is none.
    #[inline(always)]
    pub fn word_address(&self, addr: usize) -> usize {
        self.leaf(addr).map_or(0, |leaf| leaf.starts.as_ptr() as usize + leaf.word_of(addr) * 8)
    }

    /// All starts in the order of addresses.
    pub fn iter(&self) -> impl Iterator<Item = usize> + '_ {
        self.select(|leaf, word| leaf.starts[word])
    }

    /// From the first block to the end of the last one, for each part of the address space that has some.
    pub fn ranges(&self) -> impl Iterator<Item = AddrRange> + '_ {
        self.leaves[..self.used].iter().flatten().map(|leaf| {
            let first = leaf.starts[leaf.first].trailing_zeros() as usize * 16;
            AddrRange::new(leaf.from + leaf.first * WORD_SPAN + first, leaf.end)
        })
    }

    /// The starts that are not marked, in the order of addresses.
    pub fn unmarked(&self) -> impl Iterator<Item = usize> + '_ {
        self.select(|leaf, word| match leaf.starts[word] {
            0 => 0,
            starts => starts & !leaf.marks[word],
        })
    }

    /// The starts that are marked, in the order of addresses.
    pub fn marked(&self) -> impl Iterator<Item = usize> + '_ {
        self.select(|leaf, word| leaf.starts[word] & leaf.marks[word])
    }

    fn select(&self, bits: impl Fn(&Leaf, usize) -> u64 + Copy) -> impl Iterator<Item = usize> {
        self.leaves[..self.used].iter().flatten().flat_map(move |leaf| {
            (leaf.first..=leaf.last).flat_map(move |word| {
                let mut rest = bits(leaf, word);
                core::iter::from_fn(move || {
                    if rest == 0 {
                        return None;
                    }
                    let at = leaf.from + word * WORD_SPAN + rest.trailing_zeros() as usize * 16;
                    rest &= rest - 1;
                    Some(at)
                })
            })
        })
    }
}

impl Leaf {
    /// `before` is the end of the last block of an earlier leaf; `end_of` gives a block's.
    fn set_granules(&mut self, before: usize, end_of: impl Fn(usize) -> usize) {
        let word_of = |addr: usize| (addr.saturating_sub(self.from) / WORD_SPAN).min(self.starts.len());
        let blocks = |word: &usize| self.starts[*word] != 0;
        // The last word that is not empty, and where its last block ends; not looked up before it is asked for.
        let (mut last, mut end) = (None, Some(before));
        for granule in 0..LEAF_SPAN / GRANULE {
            let start = self.base + granule * GRANULE;
            let mut words = word_of(start)..word_of(start + GRANULE);
            let reached = match words.rfind(blocks) {
                Some(word) => {
                    (last, end) = (Some(word), (word == self.last).then_some(self.end));
                    true
                }
                None => {
                    let end = end.get_or_insert_with(|| {
                        last.map_or(before, |word| end_of(start_in(self, word, self.starts[word])))
                    });
                    start <= *end
                }
            };
            self.granules[granule / 64] |= u64::from(reached) << (granule % 64);
        }
    }

    /// Where in the bitmaps an address of the leaf stands: beyond their end if it is not covered.
    #[inline(always)]
    const fn word_of(&self, addr: usize) -> usize {
        addr.wrapping_sub(self.from) / WORD_SPAN
    }

    #[inline(always)]
    fn has(&self, words: &[u64], addr: usize) -> bool {
        words.get(self.word_of(addr)).is_some_and(|word| word & bit_of(addr) != 0)
    }
}

#[inline(always)]
const fn bit_of(addr: usize) -> u64 {
    1 << (addr / 16 % 64)
}

fn start_in(leaf: &Leaf, word: usize, bits: u64) -> usize {
    leaf.from + word * WORD_SPAN + (63 - bits.leading_zeros() as usize) * 16
}

fn leaf_slots(count: usize) -> Option<&'static mut [Option<Leaf>]> {
    let mut list: List<[usize; size_of::<Option<Leaf>>() / 8]> = List::new();
    for _ in 0..count.max(1) {
        if !list.push([0; size_of::<Option<Leaf>>() / 8]) {
            return None;
        }
    }
    leaf_memory::slots(list, count.max(1))
}

mod leaf_memory {
    #![allow(unsafe_code)] // makes a slice of options in mapped memory
    use super::{Leaf, List};

    pub(super) fn slots<const N: usize>(
        mut list: List<[usize; N]>,
        count: usize,
    ) -> Option<&'static mut [Option<Leaf>]> {
        let start = list.as_mut_ptr().cast::<Option<Leaf>>();
        for i in 0..count {
            // SAFETY: the list holds `count` items of the option's size, page-aligned; it is never grown or freed again.
            unsafe { start.add(i).write(None) };
        }
        // The list would give its memory back.
        core::mem::forget(list);
        // SAFETY: all `count` options were just written; the memory stays mapped.
        Some(unsafe { core::slice::from_raw_parts_mut(start, count) })
    }
}

/// `Some(None)` for a leaf without blocks, `None` without memory.
fn build_leaf(base: usize, cells: &'static [u16], pages: &mut Pages, count: &mut usize) -> Option<Option<Leaf>> {
    let at = cells.as_ptr() as usize;
    // Cells that were never written have no page yet: to read them all would make 2,000 (1.5 ms for /bin/true).
    let mut runs: List<AddrRange> = List::new();
    let mut listed = true;
    pages.each(AddrRange::new(at, at + size_of_val(cells)), Resident::Private, |run| listed &= runs.push(run));
    listed.then_some(())?;
    let (Some(lowest), Some(highest)) = (runs.first(), runs.last()) else { return Some(None) };
    let word_at = |cell: usize| (cell - at) / (64 * 2);
    let (offset, words) = (word_at(lowest.start), word_at(highest.end) - word_at(lowest.start));
    let bitmaps = arena::zeroed::<u64>(3 * words)?;
    let (starts, rest) = bitmaps.split_at_mut(words);
    let (marks, extra) = rest.split_at_mut(words);
    let (mut first, mut last) = (usize::MAX, 0);
    for run in runs.iter() {
        let (from, to) = (word_at(run.start), word_at(run.end));
        for (word, group) in (from - offset..to - offset).zip(cells[from * 64..to * 64].chunks_exact(64)) {
            if group.iter().fold(0, |all, cell| all | cell) & 1 == 0 {
                continue;
            }
            let bits = group.iter().enumerate().fold(0u64, |bits, (i, cell)| bits | u64::from(cell & 1) << i);
            starts[word] = bits;
            *count += bits.count_ones() as usize;
            first = first.min(word);
            last = word;
        }
    }
    if first == usize::MAX {
        return Some(None);
    }
    let mut back = 0;
    for word in first..=last {
        back = if starts[word] == 0 { back + 1 } else { 0 };
        marks[word] = back;
    }
    let from = base + offset * WORD_SPAN;
    Some(Some(Leaf {
        base,
        from,
        starts,
        marks,
        extra,
        first,
        last,
        end: 0,
        entered: false,
        granules: [0; LEAF_SPAN / GRANULE / 64],
    }))
}

#[cfg(test)]
mod tests;
