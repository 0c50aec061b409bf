//! The *memo* layer: parts of a thread's stacks, found again by where they begin and verified slot by slot.
//!
//! An entry is found by the state of its first frame (return address and stack pointer) and holds the slots at which the
//! outer return addresses lay, and those addresses. On a hit every slot is read again and compared, from the inside out. Equal
//! everywhere means the same stack, by induction: a return address and the frame's stack pointer determine, by the unwind
//! tables, where the caller's return address lies. Where a table takes the frame pointer for its base, the frame pointer is
//! compared too. The reading is safe for the same reason: a slot is read only after all that says where it lies was found
//! unchanged.
//!
//! What is not known is walked and kept, not to the outermost frame but to the next *border*: a state whose hash says so, one in
//! [`BETWEEN`]. So the outer parts of many stacks are kept once, and a new one costs its inner frames (the idea is that of
//! content-defined chunks: Muthitacharoen, Chen, Mazieres, "A Low-bandwidth Network File System", 2001). At the first difference the
//! frames before it stand, and the search goes on with the frame that was found there instead; where that is the same function at
//! another of its calls, what lies behind it is what the entry says. A stack that was put together again becomes an entry of its own.
//!
//! A whole stack takes about 6 ns and 0.4 ns for each frame. Parts through signal handlers or code without a file are never kept,
//! and a library that is closed empties all memos.
#![allow(unsafe_code)] // reads the live stack

mod check;
mod ids;
mod join;
mod pieces;
mod record;
mod room;

use super::walk::{Ended, NodeCache, Trace};
use super::{OwnStack, Start, Unwinder};
use crate::StackId;
use crate::arena;
use crate::record::depot::{MAX_DEPTH, POWERS};
use check::{About, read, sibling, verify};
use core::sync::atomic::Ordering::Relaxed;
use record::Recorder;
use room::{Crowding, Room};

pub use ids::Ids;
pub(super) use record::{Nobody, Watch};

/// Entries of a set: stacks that begin in the same place and differ further out.
const WAYS: usize = 4;
/// Stacks that are kept for a while where most of those that have to be put together come again at once.
const RECENT: usize = 2;
const PAYS: u8 = if cfg!(test) { 2 } else { 32 };
const IDS: usize = 1 << 13;
/// An entry goes when it was wrong so much: what was not found counts more than what was found in a sibling's place.
const PATIENCE: u16 = 1024;
const WRONG: u16 = 16;
const SIBLING: u16 = 1;
/// A frame needs three at most.
const MOST: usize = 3 * MAX_DEPTH;
/// Frames from border to border, on average.
const BETWEEN: u64 = 16;

/// A part of a stack.
#[derive(Clone, Copy)]
#[repr(C)]
struct Entry {
    pc: usize,
    sp: usize,
    /// Of the first frame.
    first_hash: u64,
    first_id: u32,
    at: u32,
    len: u16,
    frames: u8,
    /// It ends with the outermost frame, as the unwind tables say. If not, its last frame is where the next part begins.
    whole: bool,
    /// How much has differed. An entry that is wrong for long makes place for what there is now.
    wrong: u16,
    /// Stack id of the entry as a whole stack; 0: not known.
    id: u32,
    stamp: u32,
}

impl Entry {
    #[inline(always)]
    const fn is_of(&self, state: &Start, stamp: u32) -> bool {
        self.pc == state.pc && self.sp == state.sp && self.stamp == stamp
    }

    /// It is all of a stack of this depth.
    #[inline(always)]
    const fn is_stack(&self, depth: usize) -> bool {
        self.whole || self.frames as usize == depth
    }

    /// Something else was found; `by` how much that speaks against it.
    fn was_wrong(&mut self, by: u16) {
        self.wrong += by;
        if self.wrong >= PATIENCE {
            self.stamp = 0;
        }
    }

    /// The frames that stand if these checks do, and their hash: the state's own, and those behind the return addresses.
    #[inline(always)]
    fn up_to(&self, checks: &[About]) -> (usize, u64) {
        checks.last().map_or((1, self.first_hash), |check| (check.frames(), check.hash))
    }
}

/// What an entry has given to the stack that is being put together: a frame, and those behind some of its checks, which hold.
#[derive(Clone, Copy)]
#[repr(C)]
struct Part {
    first_id: u32,
    at: u32,
    len: u16,
    /// The frames before it.
    before: u8,
    /// Which frame of its entry it begins with, or stands in for.
    index: u8,
}

/// One thread's. About 1 MiB of address space, and up to 16 where stacks are many; only what is used is ever touched.
#[repr(C)]
pub struct Memo {
    // What every stack asks for lies in one line.
    /// Entries with another one are empty.
    stamp: u32,
    generation: u32,
    tables: Room,
    /// Goes up with each unknown stack that came again at once, to twice [`PAYS`], and down with each that did not.
    pays: u8,
    /// Counts what takes an entry's place, and what is not kept.
    turn: u8,
    skipped: u8,
    used: usize,
    parted: usize,
    /// The hash of the stack that was put together last.
    latest: u64,
    crowding: Crowding,
    /// While that pays, the whole stacks that were not known last, in the place of parts.
    recent: [Entry; RECENT],
    /// Which of them came again.
    paid: [bool; RECENT],
    parts: [Part; MAX_DEPTH],
    /// Ids of stacks that had to be put together.
    pub ids: Ids<IDS>,
}

/// One that has no tables yet.
#[repr(C)]
struct Place(Memo);
// SAFETY: integers, `false` and null are valid when zero; entries with stamp 0 are never looked at, since `stamp` begins at 1.
unsafe impl arena::Zeroed for Place {}

/// What was found out about a stack.
#[derive(Clone, Copy, Debug)]
pub struct Pieced {
    pub hash: u64,
    start: Start,
    /// The entry that is the whole stack.
    entry: Option<At>,
    /// The one that is to be.
    recent: Option<usize>,
    /// What could be kept of it.
    parts: Parts,
    /// Some of it was walked.
    is_walked: bool,
}

/// Set and way of an entry.
type At = (usize, usize);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Parts {
    /// Some frames were walked and could not be kept, or it is an entry already.
    Lacking,
    /// All, up to the depth that was asked for or (true) the outermost frame; not all of them as they were kept.
    Crooked(bool),
    /// The same, and one leads to the other.
    Straight(bool),
}

impl Memo {
    /// `None` without memory.
    pub fn new() -> Option<&'static mut Self> {
        let tables = Room::new(0)?;
        let [Place(memo)] = arena::zeroed::<Place>(1)? else { return None };
        memo.tables = tables;
        Some(memo)
    }

    /// Whether this thread's stacks need more room than there is.
    #[inline(always)]
    pub const fn wants_more(&self) -> bool {
        self.crowding.wants_more()
    }

    /// Gets more, if there is some, and is empty then.
    #[cold]
    #[inline(never)]
    pub fn grow(&mut self) {
        let grown = self.tables.grow();
        self.crowding.has_grown(grown);
        if grown {
            self.empty(self.generation);
        }
    }

    fn empty(&mut self, generation: u32) {
        self.stamp = self.stamp.wrapping_add(1).max(1);
        self.used = 0;
        self.generation = generation;
    }

    /// Writes those frames of the stack that was pieced together last to its trace that were not walked.
    pub fn complete(&self, trace: &mut Trace) {
        for part in &self.parts[..self.parted] {
            let checks = self.tables.checks.of(part.at, part.len).abouts;
            let behind = checks.iter().filter(|check| !check.is_word()).map(|check| check.id());
            let ids = &mut trace.ids[usize::from(part.before)..];
            ids.iter_mut().zip(core::iter::once(part.first_id).chain(behind)).for_each(|(id, frame)| *id = frame);
        }
    }

    /// Whether the entry is the whole stack from `start`.
    ///
    /// # Safety
    /// `start` is a live frame's state, and its frame pointer is in the thread's [`NodeCache::fp`].
    #[inline(always)]
    unsafe fn holds(&self, entry: &Entry, start: &Start, depth: usize) -> bool {
        if !entry.is_of(start, self.stamp) || entry.id == 0 || !entry.is_stack(depth) {
            return false;
        }
        // SAFETY: so many checks were written there; `start` is the entry's state.
        unsafe { verify(self.tables.checks.slots_of(entry.at, entry.len)) }.is_none()
    }

    const fn keeps_recent(&self) -> bool {
        self.pays >= PAYS
    }

    /// # Safety
    /// As for [`Self::holds`].
    #[inline(never)]
    unsafe fn recent(&mut self, start: &Start, depth: usize) -> Option<StackId> {
        // SAFETY: by this function's own contract.
        let at = (0..RECENT).find(|at| unsafe { self.holds(&self.recent[*at], start, depth) })?;
        self.paid[at] = true;
        StackId::new(self.recent[at].id)
    }

    /// Notes whether a stack came again at once.
    fn note_repeat(&mut self, repeats: bool) {
        self.pays = match self.pays {
            pays if !repeats => pays.saturating_sub(1),
            // The first ones have yet to show it.
            pays if pays + 1 == PAYS => 2 * PAYS,
            pays => (pays + 1).min(2 * PAYS),
        };
    }

    #[inline(always)]
    const fn set(&self, state: &Start) -> usize {
        (hash(state.pc, state.sp) >> self.tables.shift) as usize
    }

    #[inline(always)]
    fn entries(&self, set: usize) -> &[Entry; WAYS] {
        debug_assert!(set < self.tables.entries.len());
        // SAFETY: of [`Self::set`], whose shift leaves the number of one of them.
        unsafe { self.tables.entries.get_unchecked(set) }
    }

    #[inline(always)]
    fn find(&self, state: &Start) -> Option<At> {
        let set = self.set(state);
        let way = self.entries(set).iter().position(|entry| entry.is_of(state, self.stamp))?;
        Some((set, way))
    }

    /// Where a new entry of this state may go.
    fn place_for(&mut self, state: &Start) -> At {
        let set = self.set(state);
        let free = self.tables.entries[set].iter().position(|entry| entry.stamp != self.stamp);
        let way = free.unwrap_or_else(|| {
            self.turn = self.turn.wrapping_add(1);
            usize::from(self.turn) % WAYS
        });
        (set, way)
    }
}

#[inline(always)]
const fn hash(pc: usize, sp: usize) -> u64 {
    (pc as u64 ^ (sp as u64).rotate_left(29)).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

/// Whether a part that leads to this state ends there, and another one begins.
#[inline(always)]
const fn is_border(state: &Start) -> bool {
    (hash(state.pc, state.sp) >> 38).is_multiple_of(BETWEEN)
}

impl Unwinder {
    /// The id of the stack from `start`, if the memo has it as a whole.
    ///
    /// # Safety
    /// `start` is the state of a live frame of the calling thread, whose memo and cache these are.
    #[inline(always)]
    pub unsafe fn recall(&self, memo: &mut Memo, cache: &NodeCache, start: Start, depth: usize) -> Option<StackId> {
        if memo.generation != self.frames.generation() {
            return None;
        }
        cache.fp.store(start.fp, Relaxed);
        // SAFETY: by this function's own contract.
        unsafe {
            for entry in memo.entries(memo.set(&start)) {
                if memo.holds(entry, &start, depth) {
                    return StackId::new(entry.id);
                }
            }
            if memo.keeps_recent() { memo.recent(&start, depth) } else { None }
        }
    }
}

#[cfg(test)]
mod tests;
