//! Append-only array of plain records in mapped chunks: id -> record, ids dense from 1, never moved, never freed.
#![allow(unsafe_code)] // hands out records in mapped memory

use crate::arena::{self, Zeroed};
use crate::sync::{AtomicU32, AtomicUsize};
use core::marker::PhantomData;
use core::sync::atomic::{Ordering::Acquire, Ordering::Relaxed, Ordering::Release};

const CHUNK_BITS: u32 = if cfg!(feature = "model") { 1 } else { 12 };
const CHUNK: usize = 1 << CHUNK_BITS;

/// Holds up to `CHUNKS * 4096 - 1` records. Reading is a load of the chunk's address and one of the record.
///
/// (This, and what is made of it, is all zeros in the beginning, so that it is not copied from the library's file, and in the order of C,
/// what is used first in the first page: each page that a short process does not touch is a page fault less.)
#[repr(C)]
pub struct Chunks<T: Zeroed + Sync, const CHUNKS: usize> {
    /// How many records there are.
    used: AtomicU32,
    chunks: [AtomicUsize; CHUNKS],
    of: PhantomData<T>,
}

impl<T: Zeroed + Sync + 'static, const CHUNKS: usize> Default for Chunks<T, CHUNKS> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T: Zeroed + Sync + 'static, const CHUNKS: usize> Chunks<T, CHUNKS> {
    pub const fn new() -> Self {
        Self { used: AtomicU32::new(0), chunks: [const { AtomicUsize::new(0) }; CHUNKS], of: PhantomData }
    }

    /// A new zeroed record and its id; `None` if it is full or no memory can be mapped.
    pub fn add(&self) -> Option<(u32, &'static T)> {
        let more = |used: u32| (used as usize + 1 < CHUNKS * CHUNK).then_some(used + 1);
        let id = self.used.fetch_update(Relaxed, Relaxed, more).ok()? + 1;
        let place = &self.chunks[id as usize >> CHUNK_BITS];
        if place.load(Acquire) == 0 {
            let range = arena::map_for_good(CHUNK * size_of::<T>())?;
            // If another thread was first, this stays unused.
            let _ = place.compare_exchange(0, range.start, Release, Relaxed);
        }
        Some((id, self.get(id)?))
    }

    /// The record `id`; `None` for an id that was never given out.
    #[inline]
    pub fn get(&self, id: u32) -> Option<&'static T> {
        let chunk = self.chunks.get(id as usize >> CHUNK_BITS)?.load(Acquire);
        if chunk == 0 {
            return None;
        }
        // SAFETY: the chunk holds CHUNK records of zeroed memory, which are values of `T`, and is never unmapped; records
        // are changed only through interior mutability.
        Some(unsafe { &*(chunk as *const T).add(id as usize & (CHUNK - 1)) })
    }

    /// One more than the largest id given out.
    pub fn end(&self) -> u32 {
        self.used.load(Relaxed) + 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_stay_where_they_are_and_the_end_is_an_end() {
        let chunks: Chunks<AtomicU32, 2> = Chunks::new();
        assert!(chunks.get(1).is_none());
        for want in 1..8192u32 {
            let (id, record) = chunks.add().unwrap();
            assert_eq!(id, want);
            record.store(id * 3, Relaxed);
        }
        assert!(chunks.add().is_none());
        assert!((1..8192).all(|id| chunks.get(id).unwrap().load(Relaxed) == id * 3));
    }
}
