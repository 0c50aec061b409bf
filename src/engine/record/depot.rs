//! Stack depot: frames -> 32-bit stack id, and back.
//!
//! Called from inside malloc on any thread, read by the snapshot child; insert-only and without locks. A stack is 16 bytes
//! and 2 for each frame, or 4 where one of its frames is beyond the first 65,536 of the program. Ids end at [`MAX_STACKS`],
//! what a live map cell can hold; a stack beyond that is counted and lost, its blocks are not.
#![allow(unsafe_code)] // reads and writes records in mapped chunks

use super::chunks::Chunks;
use super::index::Index;
use super::live_map::MAX_STACKS;
use crate::sync::{AtomicU32, AtomicU64, AtomicUsize};
use crate::{StackId, arena};
use core::sync::atomic::{Ordering::Acquire, Ordering::Relaxed, Ordering::Release};

/// Most frames of a stack.
pub const MAX_DEPTH: usize = 64;

const DATA_CHUNK: usize = if cfg!(feature = "model") { 64 } else { 1 << 20 };
const DATA_CHUNKS: usize = 768;
const HEADER: usize = 16;

/// The hash of a stack: the sum of `node.hash() * POWERS[i]`, i counting from the caller of the allocation. It composes:
/// the hash of a stack follows from those of its parts without looking at their frames again.
pub const POWERS: [u64; MAX_DEPTH] = {
    let mut powers = [1u64; MAX_DEPTH];
    let mut i = 1;
    while i < MAX_DEPTH {
        powers[i] = powers[i - 1].wrapping_mul(0x9e37_79b9_7f4a_7c15);
        i += 1;
    }
    powers
};

/// Node ids, caller of the allocation first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Frames {
    Narrow(&'static [u16]),
    Wide(&'static [u32]),
}

impl Frames {
    pub fn iter(self) -> impl Iterator<Item = u32> {
        let (narrow, wide): (&[u16], &[u32]) = match self {
            Frames::Narrow(ids) => (ids, &[]),
            Frames::Wide(ids) => (&[], ids),
        };
        narrow.iter().map(|id| u32::from(*id)).chain(wide.iter().copied())
    }
}

impl PartialEq<[u32]> for Frames {
    fn eq(&self, frames: &[u32]) -> bool {
        match self {
            Frames::Narrow(ids) => {
                ids.len() == frames.len() && ids.iter().zip(frames).all(|(id, frame)| u32::from(*id) == *frame)
            }
            Frames::Wide(ids) => *ids == frames,
        }
    }
}

/// Of the length in a record: the ids are wide.
const WIDE: u32 = 1 << 31;

/// As the index wants it, which looks at both halves.
const fn mixed(hash: u64) -> u64 {
    hash ^ hash >> 31
}

/// See the module.
#[repr(C)] // what is used first lies in the first page
pub struct Depot {
    index: Index,
    /// First free byte of all chunks, chunk * DATA_CHUNK + offset, less 8: no stack lies at 0.
    used: AtomicU64,
    lost: AtomicU64,
    /// id -> where its record lies: chunk * DATA_CHUNK + offset, 0 while it is being written.
    places: Chunks<AtomicU32, 512>,
    data: [AtomicUsize; DATA_CHUNKS],
}

impl Default for Depot {
    fn default() -> Self {
        Self::new()
    }
}

impl Depot {
    pub const fn new() -> Self {
        Self {
            index: Index::new(),
            used: AtomicU64::new(0),
            lost: AtomicU64::new(0),
            places: Chunks::new(),
            data: [const { AtomicUsize::new(0) }; DATA_CHUNKS],
        }
    }

    /// The id of the stack with this hash and these frames (node ids). `None` if the depot is full.
    pub fn intern(&self, hash: u64, frames: &[u32]) -> Option<StackId> {
        match self.index.find(mixed(hash), |id| self.is(id, hash, frames)) {
            Some(id) => StackId::new(id),
            None => self.intern_new(hash, frames),
        }
    }

    /// The same for a stack that has just not been found. (Another thread may have added it meanwhile.)
    pub fn intern_new(&self, hash: u64, frames: &[u32]) -> Option<StackId> {
        let is = |id| self.is(id, hash, frames);
        let id = self.add(hash, frames).and_then(|id| self.index.insert(mixed(hash), id, is));
        if id.is_none() {
            self.lost.fetch_add(1, Relaxed);
        }
        StackId::new(id?)
    }

    fn is(&self, id: u32, hash: u64, frames: &[u32]) -> bool {
        StackId::new(id).and_then(|id| self.record(id)).is_some_and(|(h, f)| h == hash && f == *frames)
    }

    /// The id of the stack with this hash, if there is one. (Of 64 bits: two stacks of a program with the same hash are not to be
    /// expected before there are some billions.)
    pub fn known(&self, hash: u64) -> Option<StackId> {
        let is = |id: u32| StackId::new(id).and_then(|id| self.record(id)).is_some_and(|(h, _)| h == hash);
        StackId::new(self.index.find(mixed(hash), is)?)
    }

    /// The frames of a stack as node ids, caller of the allocation first.
    pub fn frames(&self, id: StackId) -> Frames {
        self.record(id).map_or(Frames::Narrow(&[]), |(_, frames)| frames)
    }

    /// Stacks interned.
    pub fn count(&self) -> u32 {
        self.places.end() - 1
    }

    /// Stacks that found no room.
    pub fn lost(&self) -> u64 {
        self.lost.load(Relaxed)
    }

    fn record(&self, id: StackId) -> Option<(u64, Frames)> {
        let place = self.places.get(id.get())?.load(Acquire) as usize * 8;
        let chunk = self.data.get(place / DATA_CHUNK)?.load(Acquire);
        if place == 0 || chunk == 0 {
            return None;
        }
        let at = chunk + place % DATA_CHUNK;
        // SAFETY: `place` was published after the header and `len` frames were written at `at`, inside one mapped chunk;
        // they are never written again.
        unsafe {
            let (hash, len) = (*(at as *const u64), *((at + 8) as *const u32));
            let (ids, count) = (at + HEADER, (len & !WIDE) as usize);
            Some((
                hash,
                if len & WIDE == 0 {
                    Frames::Narrow(core::slice::from_raw_parts(ids as *const u16, count))
                } else {
                    Frames::Wide(core::slice::from_raw_parts(ids as *const u32, count))
                },
            ))
        }
    }

    #[cold]
    fn add(&self, hash: u64, frames: &[u32]) -> Option<u32> {
        let frames = &frames[..frames.len().min(MAX_DEPTH)];
        let wide = frames.iter().any(|frame| *frame > u32::from(u16::MAX));
        let each = if wide { size_of::<u32>() } else { size_of::<u16>() };
        let at = self.reserve((HEADER + frames.len() * each).next_multiple_of(8))?;
        let (id, place) = self.places.add()?;
        if id > MAX_STACKS {
            return None;
        }
        let address = self.data.get(at / DATA_CHUNK)?.load(Acquire) + at % DATA_CHUNK;
        // SAFETY: `reserve` gave these bytes, inside one mapped chunk, to this call alone.
        unsafe {
            *(address as *mut u64) = hash;
            *((address + 8) as *mut u32) = frames.len() as u32 | if wide { WIDE } else { 0 };
            let ids = address + HEADER;
            if wide {
                (ids as *mut u32).copy_from_nonoverlapping(frames.as_ptr(), frames.len());
            } else {
                let ids = core::slice::from_raw_parts_mut(ids as *mut u16, frames.len());
                ids.iter_mut().zip(frames).for_each(|(id, frame)| *id = *frame as u16);
            }
        }
        place.store((at / 8) as u32, Release);
        Some(id)
    }

    fn reserve(&self, bytes: usize) -> Option<usize> {
        let fits = |used: u64| {
            let free = used as usize + 8;
            let start = if free % DATA_CHUNK + bytes <= DATA_CHUNK { free } else { free.next_multiple_of(DATA_CHUNK) };
            (start / DATA_CHUNK < DATA_CHUNKS).then_some(start)
        };
        let before =
            self.used.fetch_update(Relaxed, Relaxed, |used| fits(used).map(|start| (start + bytes - 8) as u64)).ok()?;
        let at = fits(before)?;
        let chunk = &self.data[at / DATA_CHUNK];
        if chunk.load(Acquire) == 0 {
            let range = arena::map_for_good(DATA_CHUNK)?;
            // If another thread was first, this stays unused.
            let _ = chunk.compare_exchange(0, range.start, Release, Relaxed);
        }
        Some(at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash_of(frames: &[u32]) -> u64 {
        frames
            .iter()
            .zip(POWERS)
            .fold(0, |hash, (frame, power)| hash.wrapping_add(power.wrapping_mul(u64::from(*frame))))
    }

    #[test]
    fn a_stack_has_one_id_and_its_frames_come_back() {
        let depot = Depot::new();
        let stacks: Vec<Vec<u32>> =
            (1..60_000u32).map(|i| (0..i % 65).map(|f| i * 7 + f * f).chain([i]).take(64).collect()).collect();
        let ids: Vec<_> = stacks.iter().map(|stack| depot.intern(hash_of(stack), stack).unwrap()).collect();
        for (stack, id) in stacks.iter().zip(&ids) {
            assert_eq!(depot.frames(*id), stack[..]);
            assert!(depot.frames(*id).iter().eq(stack.iter().copied()));
            assert_eq!(depot.intern(hash_of(stack), stack), Some(*id));
        }
        assert_eq!(depot.count(), 59_999);
        assert_eq!(depot.lost(), 0);
    }

    #[test]
    fn stacks_with_equal_hashes_are_told_apart() {
        let depot = Depot::new();
        let one = depot.intern(5, &[1, 2, 3]).unwrap();
        let two = depot.intern(5, &[1, 2, 4]).unwrap();
        assert_ne!(one, two);
        assert_eq!(depot.frames(one), [1, 2, 3][..]);
        assert_eq!(depot.frames(two), [1, 2, 4][..]);
    }

    #[test]
    fn threads_share_ids() {
        let depot = Depot::new();
        let ids: Vec<Vec<StackId>> = std::thread::scope(|scope| {
            let intern = || (0..20_000u32).map(|i| depot.intern(u64::from(i) << 33, &[i, 9]).unwrap()).collect();
            let workers: Vec<_> = (0..4).map(|_| scope.spawn(intern)).collect();
            workers.into_iter().map(|worker| worker.join().unwrap()).collect()
        });
        for worker in &ids {
            assert!(worker.iter().enumerate().all(|(i, id)| depot.frames(*id) == [i as u32, 9][..]));
        }
    }
}
