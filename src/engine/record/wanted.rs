//! Sizes whose stacks are wanted: a scan has found lost blocks of them without a stack, which sampling had passed over. Every
//! allocation of such a size gets its stack from then on, so that a leak found cheaply is named at the next scan.
//!
//! Asked inside malloc. A size is one bit of 4,096, by hash; one that shares its bit with another has its stacks recorded, too,
//! which costs a little and changes no estimate.

use core::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

const WORDS: usize = 64;
/// Beyond a quarter of the bits, sampling would be no sampling any more.
const MOST: u32 = 1024;

/// See the module. All zero is an empty set.
#[derive(Debug)]
pub struct Wanted {
    any: AtomicBool,
    bits: [AtomicU64; WORDS],
}

impl Default for Wanted {
    fn default() -> Self {
        Self::new()
    }
}

impl Wanted {
    pub const fn new() -> Self {
        Self { any: AtomicBool::new(false), bits: [const { AtomicU64::new(0) }; WORDS] }
    }

    #[inline(always)]
    pub fn wants(&self, size: usize) -> bool {
        self.any.load(Relaxed) && self.has(size)
    }

    #[inline]
    fn has(&self, size: usize) -> bool {
        let (word, bit) = place(size);
        self.bits[word].load(Relaxed) & bit != 0
    }

    /// Adds a size, unless there are too many already.
    pub fn add(&self, size: usize) {
        if !self.has(size) && self.count() < MOST {
            let (word, bit) = place(size);
            self.bits[word].fetch_or(bit, Relaxed);
            self.any.store(true, Relaxed);
        }
    }

    /// Adds all that are in another set. Gives whether there is any.
    pub fn add_all(&self, other: &Self) -> bool {
        if other.any.load(Relaxed) {
            self.bits.iter().zip(&other.bits).for_each(|(bits, more)| _ = bits.fetch_or(more.load(Relaxed), Relaxed));
            self.any.store(true, Relaxed);
        }
        self.any.load(Relaxed)
    }

    /// How many sizes it has; those that share a bit count once.
    pub fn count(&self) -> u32 {
        self.bits.iter().map(|bits| bits.load(Relaxed).count_ones()).sum()
    }
}

const fn place(size: usize) -> (usize, u64) {
    let hash = (size as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 52;
    (hash as usize / 64, 1 << (hash % 64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_added_is_wanted_and_hardly_anything_else() {
        let (wanted, more) = (Wanted::new(), Wanted::new());
        assert!(!wanted.wants(24));
        more.add(24);
        assert!(!wanted.add_all(&Wanted::new()) && wanted.add_all(&more));
        wanted.add(1337);
        assert!(wanted.wants(24) && wanted.wants(1337) && wanted.count() == 2);
        let others = (0..10_000).filter(|size| wanted.wants(*size)).count();
        assert!(others < 20, "{others} sizes for 2");
    }

    #[test]
    fn it_does_not_grow_without_an_end() {
        let wanted = Wanted::new();
        (0..100_000).for_each(|size| wanted.add(size));
        assert_eq!(wanted.count(), MOST);
    }
}
