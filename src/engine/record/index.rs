//! Insert-only hash index: hash -> 32-bit id, without locks.
//!
//! Called from inside malloc on any thread, and read by the snapshot child. An entry is one 64-bit word {tag, id}, published
//! by one compare-and-swap, so that no reader ever waits for a thread that a fork has left behind. The index grows by levels,
//! each four times as large as the one before; a level is never moved, and searches go from the newest to the oldest.
#![allow(unsafe_code)] // reads levels in mapped memory

use crate::arena;
use crate::sync::{AtomicU32, AtomicU64, AtomicUsize};
use core::sync::atomic::{Ordering::Acquire, Ordering::Relaxed, Ordering::Release};

const FIRST_BITS: usize = if cfg!(feature = "model") { 3 } else { 11 };
const LEVELS: usize = 7;

/// See the module. Two threads that insert equal keys at the moment of growth may both succeed; a key then has two ids.
pub struct Index {
    levels: [AtomicUsize; LEVELS],
    newest: AtomicUsize,
    /// Entries of the newest level.
    filled: AtomicU32,
}

impl Default for Index {
    fn default() -> Self {
        Self::new()
    }
}

impl Index {
    pub const fn new() -> Self {
        Self { levels: [const { AtomicUsize::new(0) }; LEVELS], newest: AtomicUsize::new(0), filled: AtomicU32::new(0) }
    }

    /// The id under `hash` that `is` accepts.
    #[inline]
    pub fn find(&self, hash: u64, is: impl Fn(u32) -> bool) -> Option<u32> {
        let newest = self.newest.load(Acquire);
        (0..=newest.min(LEVELS - 1)).rev().find_map(|level| {
            let slots = self.level(level)?;
            probe(slots, hash).find_map(|slot| match slot.load(Acquire) {
                0 => Some(None),
                word if (word >> 32) as u32 == tag(hash) && is(word as u32) => Some(Some(word as u32)),
                _ => None,
            })?
        })
    }

    /// Publishes `id` under `hash`, or gives the id that another thread has published meanwhile. `id` is not 0, and what it
    /// names is complete. `None` if the index can grow no more.
    pub fn insert(&self, hash: u64, id: u32, is: impl Fn(u32) -> bool) -> Option<u32> {
        let slots = self.room()?;
        let new = u64::from(tag(hash)) << 32 | u64::from(id);
        for slot in probe(slots, hash) {
            match slot.compare_exchange(0, new, Release, Acquire) {
                Ok(_) => {
                    self.filled.fetch_add(1, Relaxed);
                    return Some(id);
                }
                Err(word) if (word >> 32) as u32 == tag(hash) && is(word as u32) => return Some(word as u32),
                Err(_) => {}
            }
        }
        None
    }

    fn level(&self, level: usize) -> Option<&[AtomicU64]> {
        let at = self.levels.get(level)?.load(Acquire);
        if at == 0 {
            return None;
        }
        // SAFETY: a level's address is stored after so many zeroed words were mapped, and stays.
        Some(unsafe { core::slice::from_raw_parts(at as *const AtomicU64, slots_of(level)) })
    }

    /// The newest level, at most half full.
    fn room(&self) -> Option<&[AtomicU64]> {
        let newest = self.newest.load(Acquire);
        match self.level(newest) {
            Some(slots) if (self.filled.load(Relaxed) as usize) < slots.len() / 2 => Some(slots),
            Some(_) => self.add(newest + 1),
            None => self.add(newest),
        }
    }

    #[cold]
    fn add(&self, level: usize) -> Option<&[AtomicU64]> {
        let place = self.levels.get(level)?;
        if place.load(Acquire) == 0 {
            let bytes = slots_of(level) * size_of::<AtomicU64>();
            let range = if level == 0 { arena::map_populated(bytes) } else { arena::map_for_good(bytes) }?;
            // If another thread was first, this stays unused.
            if place.compare_exchange(0, range.start, Release, Relaxed).is_ok() {
                self.filled.store(0, Relaxed);
                self.newest.fetch_max(level, Release);
            }
        }
        self.level(level)
    }
}

const fn slots_of(level: usize) -> usize {
    1 << (FIRST_BITS + 2 * level)
}

const fn tag(hash: u64) -> u32 {
    hash as u32
}

fn probe(slots: &[AtomicU64], hash: u64) -> impl Iterator<Item = &AtomicU64> {
    let mask = slots.len() - 1;
    let start = (hash >> 32) as usize;
    (0..slots.len()).map(move |step| &slots[(start + step) & mask])
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    fn hash(key: u32) -> u64 {
        u64::from(key).wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }

    #[test]
    fn ids_are_found_over_many_levels() {
        let index = Index::new();
        for key in 1..=50_000u32 {
            assert_eq!(index.find(hash(key), |id| id == key), None);
            assert_eq!(index.insert(hash(key), key, |id| id == key), Some(key));
        }
        for key in 1..=50_000u32 {
            assert_eq!(index.find(hash(key), |id| id == key), Some(key));
        }
        assert_eq!(index.find(hash(50_001), |id| id == 50_001), None);
    }

    #[test]
    fn equal_tags_are_told_apart_by_the_caller() {
        let index = Index::new();
        for id in 1..=100u32 {
            assert_eq!(index.insert(7, id, |other| other == id), Some(id));
        }
        assert_eq!(index.find(7, |id| id == 55), Some(55));
    }

    #[test]
    fn four_threads_agree_on_ids() {
        let index = Index::new();
        let next = AtomicU32::new(1);
        let keys: Vec<AtomicU32> = (0..100_000).map(|_| AtomicU32::new(0)).collect();
        let intern = |key: u32| {
            let is = |id: u32| keys[id as usize].load(Relaxed) == key;
            index.find(hash(key), is).unwrap_or_else(|| {
                let id = next.fetch_add(1, Relaxed);
                keys[id as usize].store(key, Relaxed);
                index.insert(hash(key), id, is).unwrap()
            })
        };
        let seen: Vec<HashMap<u32, u32>> = std::thread::scope(|scope| {
            let workers: Vec<_> =
                (0..4).map(|_| scope.spawn(|| (1..=20_000u32).map(|key| (key, intern(key))).collect())).collect();
            workers.into_iter().map(|worker| worker.join().unwrap()).collect()
        });
        for key in 1..=20_000u32 {
            for map in &seen {
                assert_eq!(keys[map[&key] as usize].load(Relaxed), key);
            }
        }
    }
}
