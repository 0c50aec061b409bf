//! The mechanism: what is recorded about each block, how a stack is unwound, how a snapshot is scanned.
//!
//! A leaf: no_std, no allocation (there is no `alloc` crate here, so `vec!` does not compile), and no knowledge of
//! LD_PRELOAD. `record` and `unwind` run inside other people's malloc; `scan` runs in the snapshot child. Memory comes from
//! `arena`, which maps it and remembers it, so that no scan takes our own tables for roots.
#![cfg_attr(not(any(test, feature = "model")), no_std)]

#[cfg(not(target_pointer_width = "64"))]
compile_error!("leakscan needs 64-bit addresses");

pub mod arena;
pub mod heap;
pub mod lock;
pub mod record;
pub mod scan;
pub mod seccomp;
mod sync;
pub mod sys;
pub mod unwind;

#[cfg(all(test, feature = "model"))]
mod models;

/// A half-open range of addresses: `start` is inside, `end` is outside.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct AddrRange {
    pub start: usize,
    pub end: usize,
}

impl AddrRange {
    pub const fn new(start: usize, end: usize) -> Self {
        Self { start, end }
    }
    pub const fn len(self) -> usize {
        self.end.saturating_sub(self.start)
    }
    pub const fn is_empty(self) -> bool {
        self.end <= self.start
    }
    pub const fn contains(self, addr: usize) -> bool {
        self.start <= addr && addr < self.end
    }
    pub const fn overlaps(self, other: Self) -> bool {
        self.start < other.end && other.start < self.end
    }
}

/// An interned stack. 0 stands for "no stack" where an `Option` would not fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StackId(pub core::num::NonZeroU32);

impl StackId {
    pub fn new(id: u32) -> Option<Self> {
        core::num::NonZeroU32::new(id).map(Self)
    }
    pub const fn get(self) -> u32 {
        self.0.get()
    }
}
