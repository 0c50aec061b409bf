//! Append-only array of plain records in mapped chunks: id -> record, ids dense from 1, never moved, never freed.
#![allow(unsafe_code)] // hands out records in mapped memory

use crate::arena::{self, Zeroed};
use crate::sync::{AtomicU32, AtomicUsize};
use core::marker::PhantomData;
use core::sync::atomic::{Ordering::Acquire, Ordering::Relaxed, Ordering::Release};

const CHUNK_BITS: u32 = if cfg!(feature = "model") { 1 } else { 12 };
const CHUNK: usize = 1 << CHUNK_BITS;

/// Holds up to `CHUNKS * 4096 - 1` records. Reading is a load of the chunk's address and one of the record.
pub struct Chunks<T: Zeroed + Sync, const CHUNKS: usize> {
    chunks: [AtomicUsize; CHUNKS],
    next: AtomicU32,
    of: PhantomData<T>,
}

impl<T: Zeroed + Sync + 'static, const CHUNKS: usize> Default for Chunks<T, CHUNKS> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T: Zeroed + Sync + 'static, const CHUNKS: usize> Chunks<T, CHUNKS> {
    pub const fn new() -> Self {
        Self { chunks: [const { AtomicUsize::new(0) }; CHUNKS], next: AtomicU32::new(1), of: PhantomData }
    }

    /// A new zeroed record and its id; `None` if it is full or no memory can be mapped.
    pub fn add(&self) -> Option<(u32, &'static T)> {
        let id =
            self.next.fetch_update(Relaxed, Relaxed, |id| ((id as usize) < CHUNKS * CHUNK).then_some(id + 1)).ok()?;
        let place = &self.chunks[id as usize >> CHUNK_BITS];
        if place.load(Acquire) == 0 {
            let range = arena::map(CHUNK * size_of::<T>())?;
            if place.compare_exchange(0, range.start, Release, Relaxed).is_err() {
                // SAFETY: nobody but us has seen this mapping.
                unsafe { arena::unmap(range) };
            }
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
        self.next.load(Relaxed)
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
