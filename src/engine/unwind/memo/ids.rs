//! Ids of stacks that are no entries, by their hashes.

use crate::StackId;
use crate::arena::Zeroed;
use crate::record::live_map::MAX_STACKS;
use core::cell::Cell;

/// Stack ids by the stacks' hashes, lossy: a word has the upper bits of the hash, and the id.
#[repr(C)]
pub struct Ids<const N: usize>([Cell<u64>; N]);

// SAFETY: integers are valid when zero; 0 is no id.
unsafe impl<const N: usize> Zeroed for Ids<N> {}

impl<const N: usize> Ids<N> {
    /// (Of 64 bits of a hash those are compared that are not the place's: 52 and more.)
    #[inline]
    pub fn get(&self, hash: u64) -> Option<StackId> {
        let word = self.0[hash as usize % N].get();
        if (word ^ hash) & !u64::from(MAX_STACKS) == 0 { StackId::new(word as u32 & MAX_STACKS) } else { None }
    }

    #[inline]
    pub fn set(&self, hash: u64, id: StackId) {
        self.0[hash as usize % N].set(hash & !u64::from(MAX_STACKS) | u64::from(id.get()));
    }
}

const _: () = assert!((MAX_STACKS + 1).is_power_of_two());

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_found_by_its_hash_alone_until_another_takes_its_place() {
        const N: u64 = 16;
        let ids = Ids::<{ N as usize }>([const { Cell::new(0) }; N as usize]);
        let (hash, id) = (0xfedc_ba98_7654_3210, StackId::new(MAX_STACKS).unwrap());
        assert_eq!(ids.get(hash), None);
        ids.set(hash, id);
        assert_eq!(ids.get(hash), Some(id));
        let other = hash ^ 1 << 40;
        assert_eq!((ids.get(other), ids.get(hash + 1), ids.get(0)), (None, None, None));
        ids.set(other, StackId::new(1).unwrap());
        assert_eq!((ids.get(other), ids.get(hash)), (StackId::new(1), None));
    }
}
