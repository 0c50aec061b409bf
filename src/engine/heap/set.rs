//! Sets of slabs, as bits in levels.
#![allow(unsafe_code)] // bits in mapped memory

use super::classes::CLASSES;

/// Levels of a set of slabs: a bit of a level says that the word of the level below is not 0.
const LEVELS: usize = 3;
/// Slabs that these can tell apart with four words at the top: 64 GiB.
pub const MOST_SLABS: usize = 4 << (6 * LEVELS);

/// Sets of slabs that lie in each other's gaps: one for each class, and two of slabs of none. So a small heap touches few pages.
pub const SETS: usize = CLASSES + 1;

/// A set of slabs, whose lowest is found by one word of each level (and some at the top).
pub struct Set {
    /// `LEVELS` arrays of words, the lowest level first, each word [`SETS`] words behind the one before.
    pub words: usize,
    /// Words of the lowest level; 0: nothing is put in or taken out any more.
    pub len: usize,
}

impl Set {
    pub const NONE: Self = Self { words: 0, len: 0 };

    /// Words of a level, and of all below it, where the lowest has `len`.
    const fn level(len: usize, level: usize) -> (usize, usize) {
        let (mut words, mut below, mut at) = (len, 0, 0);
        while at < level {
            (words, below, at) = (words.div_ceil(64), below + words, at + 1);
        }
        (words, below)
    }

    /// Words of all sets.
    pub const fn words_in_all(len: usize) -> usize {
        let (top, below) = Self::level(len, LEVELS - 1);
        (top + below) * SETS
    }

    fn word(&mut self, level: usize, at: usize) -> &mut u64 {
        let (words, below) = Self::level(self.len, level);
        debug_assert!(at < words);
        // SAFETY: the set's own memory, for which it is borrowed; slabs are within it.
        unsafe { &mut *(self.words as *mut u64).add((below + at) * SETS) }
    }

    pub fn add(&mut self, slab: usize) {
        let mut at = slab;
        for level in 0..LEVELS {
            let word = self.word(level, at / 64);
            let known = *word != 0;
            *word |= 1 << (at % 64);
            if known {
                return;
            }
            at /= 64;
        }
    }

    pub fn remove(&mut self, slab: usize) {
        let mut at = slab;
        for level in 0..LEVELS {
            let word = self.word(level, at / 64);
            *word &= !(1 << (at % 64));
            if *word != 0 {
                return;
            }
            at /= 64;
        }
    }

    pub fn lowest(&mut self) -> Option<usize> {
        let (top, _) = Self::level(self.len, LEVELS - 1);
        let first = (0..top).find(|at| *self.word(LEVELS - 1, *at) != 0)?;
        Some((0..LEVELS).rev().fold(first, |at, level| at * 64 + self.word(level, at).trailing_zeros() as usize))
    }
}
