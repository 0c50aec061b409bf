//! Pointers in disguise to blocks that nothing else reaches: one round of [`super::mark::Marker::disguised`].
#![allow(unsafe_code)] // reads root ranges and blocks

use super::blocks::{Blocks, SizeOf};
use super::sieve::{Sieve, WINDOW};
use crate::AddrRange;
use crate::arena::List;
use crate::record::live_map::Cell;

/// The bits above an address in user space, and below that of a block: tags may stand there.
const UPPER: usize = 0xffff << 48;
const LOWER: usize = 15;

/// Whether a block knows others by how far behind it they begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offsets {
    None,
    /// Any word may be such a distance.
    Everywhere,
    /// As [`Self::Everywhere`] if it is one of fontconfig's, which only its looks may tell.
    Perhaps,
}

/// See the module.
pub struct Search<'m, 'a, S: SizeOf, P, O> {
    blocks: &'m Blocks<'a, S>,
    sieve: Sieve,
    tables: &'m Tables,
    plain: P,
    holds_offsets: O,
    /// Blocks that were found, some more than once.
    pub hits: List<usize>,
    /// A list could not grow.
    pub starved: bool,
}

/// Tables that double: their parts hold the items n to 2n - 1, 2n to 4n - 1, ..., and each is known by the address that item 0 would have, as
/// many bytes before the part as it is long (SWI-Prolog's). An allocator without headers has another block of that length there as often as
/// not: two parts, known by two words in a row, are taken for a table if neither word points to a block, and three if one does not.
pub struct Tables {
    /// Where item 0 of each unreached block may lie, and how long the block is; sorted.
    parts: List<(usize, usize)>,
    low: usize,
    span: usize,
    /// The list could not grow.
    pub starved: bool,
}

impl Tables {
    /// More blocks of a length are no parts, since a table has one: they would be looked up for each word of the heap.
    const MOST: usize = 64;

    pub fn new<S: SizeOf>(blocks: &Blocks<'_, S>) -> Self {
        let (mut all, mut parts) = (List::new(), List::new());
        let mut starved = false;
        for block in blocks.unmarked() {
            let length = blocks.requested(block);
            // Words that are no multiples of 8 are not asked for.
            if length != 0 && length.is_multiple_of(8) {
                starved |= !all.push((length, block.wrapping_sub(length)));
            }
        }
        all.sort_unstable();
        for of_a_length in all.chunk_by(|one, next| one.0 == next.0).filter(|some| some.len() <= Self::MOST) {
            for &(length, item_zero) in of_a_length {
                starved |= !parts.push((item_zero, length));
            }
        }
        parts.sort_unstable();
        let (low, span) = match (parts.first(), parts.last()) {
            (Some(first), Some(last)) => (first.0, last.0 - first.0 + 1),
            _ => (0, 0),
        };
        Self { parts, low, span, starved }
    }

    #[inline(always)]
    const fn spans(&self, word: usize) -> bool {
        word.wrapping_sub(self.low) < self.span
    }

    /// The lengths of the blocks whose item 0 would lie at the address.
    fn lengths(&self, item_zero: usize) -> impl Iterator<Item = usize> + '_ {
        let first = self.parts.partition_point(|part| part.0 < item_zero);
        self.parts[first..].iter().take_while(move |part| part.0 == item_zero).map(|part| part.1)
    }
}

impl<'m, 'a, S: SizeOf, P: Fn(usize) -> usize, O: Fn(Cell) -> Offsets> Search<'m, 'a, S, P, O> {
    /// For the blocks that are not reached yet, from the `first` to the `last`.
    pub fn new(
        blocks: &'m Blocks<'a, S>,
        first: usize,
        last: usize,
        tables: &'m Tables,
        plain: P,
        holds_offsets: O,
    ) -> Self {
        // From the word before the first on, for what points there.
        Self {
            blocks,
            sieve: Sieve::new(first - 16, last),
            tables,
            plain,
            holds_offsets,
            hits: List::new(),
            starved: false,
        }
    }

    /// # Safety
    /// The range can be read.
    pub unsafe fn read(&mut self, range: AddrRange) {
        let mut at = range.start.next_multiple_of(8);
        let (mut before, mut were_spanned) = ([0; 2], false);
        while at + WINDOW <= range.end {
            // SAFETY: within the range.
            let (any, words) =
                unsafe { (self.sieve.near(at as *const u8), [0, 8].map(|up| *((at + up) as *const usize))) };
            let is_other = |word: &usize| self.sieve.spans((self.plain)(*word)) || self.sieve.may_span_shifted(*word);
            if any || words.iter().any(is_other) {
                // SAFETY: as above.
                unsafe { self.window(at) };
            }
            let are_spanned = words.iter().any(|word| self.tables.spans(*word));
            if are_spanned || were_spanned {
                self.row([before[0], before[1], words[0]]);
                self.row([before[1], words[0], words[1]]);
            }
            (before, were_spanned) = (words, are_spanned);
            at += 16;
        }
        for position in at..range.end.saturating_sub(7) {
            // SAFETY: as above.
            let word = unsafe { (position as *const usize).read_unaligned() };
            self.word(word);
            if position.is_multiple_of(8) {
                self.masked(word);
                self.row([before[0], before[1], word]);
                before = [before[1], word];
            }
        }
    }

    /// Sixteen positions, of which one may be what is looked for.
    ///
    /// # Safety
    /// `WINDOW` bytes from there on can be read.
    #[inline(never)]
    unsafe fn window(&mut self, at: usize) {
        // SAFETY: by this function's own contract.
        unsafe {
            let mut positions = self.sieve.positions(at as *const u8);
            while positions != 0 {
                self.word(((at + positions.trailing_zeros() as usize) as *const usize).read_unaligned());
                positions &= positions - 1;
            }
            self.masked(*(at as *const usize));
            self.masked(*((at + 8) as *const usize));
        }
    }

    /// # Safety
    /// The block is live.
    pub unsafe fn read_block(&mut self, block: usize) {
        // SAFETY: the live map says that the program owns the block, and the allocator how long it is.
        unsafe { self.read(AddrRange::new(block, block + self.blocks.extent(block))) };
        // SAFETY: as above.
        unsafe {
            match self.blocks.cell(block).map_or(Offsets::None, &self.holds_offsets) {
                Offsets::None => {}
                Offsets::Everywhere => {
                    for at in (block..(block + self.blocks.extent(block)).saturating_sub(7)).step_by(8) {
                        self.word((*(at as *const usize)).wrapping_add(block));
                    }
                }
                Offsets::Perhaps => self.set(block),
            }
        }
    }

    /// A block of unknown make, which may be one of fontconfig's that hold offsets, as what it leads to tells. A pattern: how many elements, for
    /// how many there is room, and where they are, 16 bytes each. A set of characters: a count of owners, how many leaves, where their
    /// list is, and where their numbers are; the list has the offset of each leaf, of 32 bytes.
    ///
    /// # Safety
    /// As for [`Self::read_block`].
    unsafe fn set(&mut self, block: usize) {
        const ELEMENT: usize = 16;
        const LEAF: usize = 32;
        let extent = self.blocks.extent(block);
        if !(16..=32).contains(&extent) {
            return;
        }
        // SAFETY: by this function's own contract; the block is as long.
        let ([first, second], offset) = unsafe { (*(block as *const [u32; 2]), *((block + 8) as *const usize)) };
        let (count, list) = (second as usize, block.wrapping_add(offset));
        if first == 0 || count == 0 || !self.blocks.is_start(list) {
            return;
        }
        let room = self.blocks.requested(list);
        if first <= second && room == count * ELEMENT {
            return self.word(list);
        }
        // SAFETY: what begins there is a live block, of so many bytes.
        let leaf = |nth: usize| unsafe { *((list + nth * 8) as *const usize) }.wrapping_add(list);
        let is_leaf = |block: usize| self.blocks.is_start(block) && self.blocks.requested(block) == LEAF;
        if count <= room / 8 && (0..count).all(|nth| is_leaf(leaf(nth))) {
            self.word(list);
            (0..count).for_each(|nth| self.word(leaf(nth)));
            if extent >= 24 {
                // SAFETY: by this function's own contract.
                self.word(unsafe { *((block + 16) as *const usize) }.wrapping_add(block));
            }
        }
    }

    /// A word with its tag or its mangling off, or as the integer that it is to a virtual machine.
    #[inline(always)]
    fn masked(&mut self, word: usize) {
        // (Without a tag above, the one below has been a pointer into the block.)
        let untagged = if word & UPPER == 0 { word } else { word & !UPPER & !LOWER };
        for word in [untagged, (self.plain)(word), word >> 1, word >> 2, word >> 3] {
            if self.sieve.holds(word) {
                self.word(word);
            }
        }
        for block in [word.wrapping_add(4), word.wrapping_add(8)] {
            // One item before an array that counts from one, unless the word points to another block there.
            if self.sieve.holds(block) && self.is_wanted(block) && self.blocks.find(word).is_none() {
                self.hit(block);
            }
        }
    }

    /// Words in a row: see [`Tables`].
    #[inline(always)]
    fn row(&mut self, words: [usize; 3]) {
        if words.iter().any(|word| self.tables.spans(*word)) {
            self.parts(&words, 1);
            self.parts(&words[1..], 2);
        }
    }

    /// Each of the words may be where a table's item 0 would be, if the others are so of parts in proportion, and `enough` of them point to no block.
    #[cold]
    fn parts(&mut self, words: &[usize], enough: usize) {
        if words.iter().filter(|word| !self.blocks.is_start(**word)).count() < enough {
            return;
        }
        for (at, word) in words.iter().enumerate() {
            for length in self.tables.lengths(*word) {
                let length_of = |place: usize| length >> at << place;
                let is_part = |(place, word): (usize, &usize)| {
                    let part = word.wrapping_add(length_of(place));
                    length_of(place) != 0
                        && self.blocks.is_start(part)
                        && self.blocks.requested(part) == length_of(place)
                };
                if length_of(at) == length && words.iter().enumerate().all(is_part) {
                    self.hit(word.wrapping_add(length));
                }
            }
        }
    }

    fn is_wanted(&self, block: usize) -> bool {
        self.blocks.is_start(block) && !self.blocks.is_marked(block)
    }

    #[cold]
    fn word(&mut self, word: usize) {
        if self.sieve.holds(word) && self.is_wanted(word) {
            self.hit(word);
        }
    }

    fn hit(&mut self, block: usize) {
        self.starved |= !self.hits.push(block);
    }
}
