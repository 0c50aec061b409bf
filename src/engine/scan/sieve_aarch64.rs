//! The filter word by word.
#![allow(unsafe_code)] // reads memory

#[derive(Clone, Copy)]
pub struct Filter {
    low: usize,
    up: usize,
}

/// Addresses from a first to a last one, with all others of their 64 KiB.
#[derive(Clone, Copy)]
pub struct Band {
    low: usize,
    up: usize,
}

impl Band {
    pub const fn new(first: usize, last: usize) -> Self {
        Self { low: first >> 16, up: (last >> 16) - (first >> 16) }
    }

    /// A bit for each of eight words that is one of them.
    #[inline(always)]
    pub fn words(&self, words: &[usize; 8]) -> u32 {
        let one = |word: &usize| u32::from((word >> 16).wrapping_sub(self.low) <= self.up);
        words.iter().enumerate().fold(0, |all, (index, word)| all | one(word) << index)
    }
}

impl Filter {
    pub const fn new(first: usize, last: usize) -> Self {
        Self { low: first, up: last - first }
    }

    /// # Safety
    /// As for [`super::Sieve::near`].
    #[inline(always)]
    pub unsafe fn near(&self, at: *const u8) -> bool {
        (0..16).any(|position| {
            // SAFETY: bytes 0 to 22.
            let word = unsafe { at.add(position).cast::<usize>().read_unaligned() } & ((1 << 48) - 1);
            word.wrapping_sub(self.low) <= self.up
        })
    }

    /// # Safety
    /// As for [`super::Sieve::positions`].
    #[inline(always)]
    pub unsafe fn positions(&self, at: *const u8) -> u32 {
        (0..16).fold(0, |all, position| {
            // SAFETY: bytes 0 to 22.
            let word = unsafe { at.add(position).cast::<usize>().read_unaligned() };
            all | u32::from(word.wrapping_sub(self.low) <= self.up) << position
        })
    }
}
