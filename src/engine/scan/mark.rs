//! The marker: from roots, through blocks, conservatively: every aligned word that points into a block keeps it.
//!
//! Memory latency is the whole cost, so candidates wait in a ring while the line of the bitmap that they need is fetched, and
//! marked blocks wait in another while their first line is (measured: 1.1 to 3.5 times faster than without).
//!
//! Two grades: what is reached through pointers to starts first; then what only pointers into the middle reach, which is
//! kept, but flagged *possible*.
#![allow(unsafe_code)] // reads root ranges and blocks

use super::blocks::{Blocks, Place, SizeOf};
use super::disguise::{Offsets, Search, Tables};
use super::sieve::Band;
use crate::AddrRange;
use crate::arena::List;
use crate::record::live_map::Cell;

/// How a range of roots is read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct How {
    /// Only pointers to starts count (libc's data: the allocator's bins point to neighbours' ends).
    pub exact_only: bool,
    /// Pointers may lie at any byte (immediates in JIT code).
    pub unaligned: bool,
}

const RING: usize = 32;
const GROUP: usize = 8;

/// See the module.
pub struct Marker<'b, 'a, S: SizeOf> {
    pub blocks: &'b mut Blocks<'a, S>,
    /// What [`Blocks::span`] gave.
    low: usize,
    span: usize,
    ring: [usize; RING],
    ring_at: usize,
    frontier: List<usize>,
    deferred: List<usize>,
    possible: bool,
    exact_only: bool,
    /// What was read as roots, for [`Marker::disguised`], and the words that were.
    ranges: List<AddrRange>,
    words: List<usize>,
    /// Blocks whose contents keep nothing.
    held: List<usize>,
    /// Words that are to be held when all else has been followed.
    at_last: List<usize>,
    /// Blocks reached since it was set, in [`Marker::disguised`].
    fresh: Option<List<usize>>,
    /// Bytes of roots read.
    pub root_bytes: u64,
    pub reached: Count,
    pub possibly: Count,
    /// A list could not grow: blocks behind some were not followed.
    pub starved: bool,
}

/// Blocks and their bytes, as they were asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    pub blocks: u64,
    pub bytes: u64,
}

impl<'b, 'a, S: SizeOf> Marker<'b, 'a, S> {
    pub fn new(blocks: &'b mut Blocks<'a, S>) -> Self {
        let (low, span) = blocks.span();
        Self {
            blocks,
            low,
            span,
            ring: [0; RING],
            ring_at: 0,
            frontier: List::new(),
            deferred: List::new(),
            possible: false,
            exact_only: false,
            ranges: List::new(),
            words: List::new(),
            held: List::new(),
            at_last: List::new(),
            fresh: None,
            root_bytes: 0,
            reached: Count::default(),
            possibly: Count::default(),
            starved: false,
        }
    }

    /// Takes a range of memory for roots.
    ///
    /// # Safety
    /// The range is mapped and readable, or a fault handler makes it so.
    pub unsafe fn root_range(&mut self, range: AddrRange, how: How) {
        self.exact_only = how.exact_only;
        let step = if how.unaligned { 1 } else { 8 };
        let mut at = range.start.next_multiple_of(step);
        let band = Band::new(self.low, (self.low + self.span).saturating_sub(1));
        // Most words are no addresses, and which are is hard to predict: eight are looked at before there is a branch. (Of those that lie
        // beside all blocks by less than 64 KiB the rest is found out later.)
        while !how.unaligned && at + GROUP * 8 <= range.end {
            prefetch(at + 1024);
            // SAFETY: by this function's own contract; `at` is a multiple of 8.
            let words = unsafe { &*(at as *const [usize; GROUP]) };
            let mut spanned = band.words(words);
            while spanned != 0 {
                self.spanned(words[spanned.trailing_zeros() as usize]);
                spanned &= spanned - 1;
            }
            at += GROUP * 8;
        }
        while at + 8 <= range.end {
            // SAFETY: by this function's own contract.
            self.candidate(unsafe { (at as *const usize).read_unaligned() });
            at += step;
        }
        self.root_bytes += range.len() as u64;
        self.starved |= !self.ranges.push(range);
        self.flush();
        self.exact_only = false;
    }

    /// Takes a single word (a register, a pointer that the kernel keeps) for a root.
    pub fn root_word(&mut self, word: usize) {
        self.candidate(word);
        self.flush();
        self.starved |= !self.words.push(word);
        self.root_bytes += 8;
    }

    /// Keeps the block that the word points into, whatever it holds.
    pub fn hold(&mut self, word: usize) {
        if let Some((block, _)) = self.blocks.find(word)
            && self.blocks.mark(block)
        {
            let (size, _) = self.blocks.both(block);
            self.reached.add(size);
            self.starved |= !self.held.push(block);
        }
    }

    /// The same, but by [`Self::hold_the_rest`], if nothing else has reached the block by then: the word may be an old one, and the block
    /// another by now.
    pub fn hold_at_last(&mut self, word: usize) {
        self.starved |= !self.at_last.push(word);
    }

    /// When all else has been followed.
    pub fn hold_the_rest(&mut self) {
        while let Some(word) = self.at_last.pop() {
            self.hold(word);
        }
    }

    /// Follows everything reached so far, then what only interior pointers reach.
    pub fn drain(&mut self) {
        self.follow();
        self.possible = true;
        while let Some(block) = self.deferred.pop() {
            self.reach(block);
            self.follow();
        }
        self.possible = false;
    }

    /// Second pass, on would-be leaks only: what is reached by pointers in disguise. A word counts if it is the start of an
    /// unreached block when read at any byte (packed structures), with its upper 16 bits off (tags, NaN boxing; then the lowest four, too), shifted right by one to
    /// three bits (an integer of a virtual machine's), or as `plain` gives it (the mangled registers of a jmp_buf); or if it points to where
    /// the block's array would have its item 0 (an array that counts from one, or a part of a table that doubles); or, in a block that `holds_offsets`, if it is how far behind that the
    /// other one begins. Gives what was reached so.
    ///
    /// # Safety
    /// The ranges that were given to [`Marker::root_range`] are still readable.
    pub unsafe fn disguised(
        &mut self,
        plain: impl Fn(usize) -> usize + Copy,
        holds_offsets: impl Fn(Cell) -> Offsets + Copy,
    ) -> Count {
        let before = self.reached;
        self.held.sort_unstable();
        self.fresh = Some(List::new());
        let mut all = true;
        let tables = Tables::new(self.blocks);
        self.starved |= tables.starved;
        loop {
            let mut unreached = self.blocks.unmarked();
            let Some(first) = unreached.next() else { break };
            let mut search =
                Search::new(self.blocks, first, unreached.last().unwrap_or(first), &tables, plain, holds_offsets);
            let fresh = self.fresh.take().unwrap_or_default();
            if all {
                let words = self.words.as_ptr_range();
                let words = AddrRange::new(words.start as usize, words.end as usize);
                for &range in self.ranges.iter().chain([&words]) {
                    // SAFETY: by this function's own contract; or a list of ours.
                    unsafe { search.read(range) };
                }
                for block in self.blocks.marked().filter(|block| self.held.binary_search(block).is_err()) {
                    // SAFETY: a live block.
                    unsafe { search.read_block(block) };
                }
            } else {
                // What was read before had nothing for the blocks that are still unreached.
                for &block in fresh.iter() {
                    // SAFETY: a live block.
                    unsafe { search.read_block(block) };
                }
            }
            all = false;
            let Search { hits, starved, .. } = search;
            self.starved |= starved;
            if hits.is_empty() {
                break;
            }
            self.fresh = Some(List::new());
            hits.iter().for_each(|block| self.reach(*block));
            self.drain();
        }
        self.fresh = None;
        Count { blocks: self.reached.blocks - before.blocks, bytes: self.reached.bytes - before.bytes }
    }

    #[inline(always)]
    fn candidate(&mut self, word: usize) {
        if word.wrapping_sub(self.low) < self.span {
            self.spanned(word);
        }
    }

    #[inline(always)]
    fn spanned(&mut self, word: usize) {
        if !self.blocks.near(word) {
            return;
        }
        prefetch(self.blocks.word_address(word));
        let old = core::mem::replace(&mut self.ring[self.ring_at], word);
        self.ring_at = (self.ring_at + 1) % RING;
        if old != 0 {
            self.test(old);
        }
    }

    fn flush(&mut self) {
        for i in 0..RING {
            let word = core::mem::take(&mut self.ring[(self.ring_at + i) % RING]);
            if word != 0 {
                self.test(word);
            }
        }
    }

    #[inline(always)]
    fn test(&mut self, word: usize) {
        match self.blocks.find(word) {
            None => {}
            Some((block, Place::Start)) => self.reach(block),
            Some(_) if self.exact_only => {}
            Some((block, Place::Interior)) if self.possible => self.reach(block),
            Some((block, _)) if self.blocks.is_marked(block) || self.deferred.push(block) => {}
            Some((block, _)) => self.reach(block),
        }
    }

    #[inline(always)]
    fn reach(&mut self, block: usize) {
        if !self.blocks.mark(block) {
            return;
        }
        // The size and the flag are looked at when the block is taken from the frontier, when its line has arrived.
        prefetch(block.wrapping_sub(8));
        if self.possible {
            self.blocks.mark_extra(block);
        }
        if !self.frontier.push(block) {
            self.starved = true;
        }
    }

    /// Follows what pointers to starts have reached so far.
    pub fn follow(&mut self) {
        self.flush();
        loop {
            while let Some(block) = self.frontier.pop() {
                let (size, extent) = self.blocks.both(block);
                self.reached.add(size);
                if self.possible {
                    self.possibly.add(size);
                }
                if let Some(fresh) = &mut self.fresh {
                    self.starved |= !fresh.push(block);
                }
                let end = block + extent;
                let mut at = block;
                while at + 8 <= end {
                    // SAFETY: the live map says that the program owns the block, and the allocator how long it is.
                    self.candidate(unsafe { (at as *const usize).read() });
                    at += 8;
                }
            }
            self.flush();
            if self.frontier.is_empty() {
                return;
            }
        }
    }
}

impl Count {
    pub fn add(&mut self, bytes: usize) {
        self.blocks += 1;
        self.bytes += bytes as u64;
    }
}

#[inline(always)]
fn prefetch(addr: usize) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch of any address is allowed and has no effect but on the cache.
    unsafe {
        core::arch::x86_64::_mm_prefetch::<{ core::arch::x86_64::_MM_HINT_T0 }>(addr as *const i8);
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = addr;
}
