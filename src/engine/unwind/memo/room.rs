//! How much a memo can hold: tables that are mapped when it is made, and larger ones where a thread's stacks are more than fit in.
#![allow(unsafe_code)] // tables in mapped memory, which a memo that is all zeros has not yet

use super::check::{About, Checks, Slot};
use super::{Entry, MOST, RECENT, WAYS};
use crate::{arena, sys};
use core::ops::{Deref, DerefMut};
use core::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// Of the smallest; each larger one has four times as many.
const SETS: usize = 1024;
const CHECKS: usize = if cfg!(test) { 3 << 10 } else { 3 << 13 };
/// The largest takes 16 MB.
const LARGEST: u32 = 2;
/// All larger ones of a process together: a container may have 64 MB, which is not to be seen from inside.
const BYTES: usize = 24 << 20;
static GROWN: AtomicUsize = AtomicUsize::new(0);

/// A slice of mapped memory, all zeros at first.
#[repr(C)]
pub struct Table<T: 'static> {
    start: *mut T,
    len: usize,
}

impl<T> Table<T> {
    fn new(len: usize) -> Option<Self>
    where
        T: arena::Zeroed,
    {
        arena::zeroed::<T>(len).map(|table| Self { start: table.as_mut_ptr(), len })
    }

    /// Lets its memory go.
    fn forget(self) {
        let start = (self.start as usize).next_multiple_of(sys::PAGE);
        let end = (self.start as usize + self.len * size_of::<T>()) & !(sys::PAGE - 1);
        if start < end && !arena::is_closed() {
            // SAFETY: it is this table's, which is nobody's any more.
            let _ = unsafe { sys::forget(start, end - start) };
        }
    }
}

impl<T> Deref for Table<T> {
    type Target = [T];
    #[inline(always)]
    fn deref(&self) -> &[T] {
        // SAFETY: of `new`, whose memory stays mapped; a memo is given to nobody before it has its tables.
        unsafe { core::slice::from_raw_parts(self.start, self.len) }
    }
}

impl<T> DerefMut for Table<T> {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: as above; it is in one place only.
        unsafe { core::slice::from_raw_parts_mut(self.start, self.len) }
    }
}

// SAFETY: integers and `false` are valid when zero.
unsafe impl arena::Zeroed for Entry {}
// SAFETY: as above.
unsafe impl arena::Zeroed for Slot {}
// SAFETY: as above.
unsafe impl arena::Zeroed for About {}

/// The tables of a memo.
#[repr(C)]
pub struct Room {
    pub entries: Table<[Entry; WAYS]>,
    /// Those of entries, and behind them those of the recent stacks, [`MOST`] each.
    pub checks: Checks,
    /// Of a hash, so that the number of a set is left.
    pub shift: u32,
    level: u32,
    /// How many checks there are of entries.
    pub most: usize,
}

impl Room {
    /// `None` without memory.
    pub fn new(level: u32) -> Option<Self> {
        let (sets, most) = (SETS << (2 * level), CHECKS << (2 * level));
        let all = most + RECENT * MOST;
        Some(Self {
            entries: Table::new(sets)?,
            checks: Checks { slots: Table::new(all)?, abouts: Table::new(all)? },
            shift: 64 - sets.trailing_zeros(),
            level,
            most,
        })
    }

    /// A larger one in the place of this one, whose memory goes. Gives whether there is.
    pub fn grow(&mut self) -> bool {
        let level = self.level + 1;
        let bytes = |level: u32| match level {
            0 => 0,
            _ => (SETS * size_of::<[Entry; WAYS]>() + CHECKS * size_of::<(Slot, About)>()) << (2 * level),
        };
        let more = bytes(level) - bytes(self.level);
        let room = |grown: usize| Some(grown + more).filter(|grown| *grown <= BYTES);
        // (A program that counts its megabytes is to have them.)
        if level > LARGEST || sys::is_memory_limited() || GROWN.fetch_update(Relaxed, Relaxed, room).is_err() {
            return false;
        }
        let Some(larger) = Self::new(level) else {
            GROWN.fetch_sub(more, Relaxed);
            return false;
        };
        let Self { entries, checks: Checks { slots, abouts }, .. } = core::mem::replace(self, larger);
        entries.forget();
        slots.forget();
        abouts.forget();
        true
    }
}

/// Whether a memo is too small: it is full again and again of stacks that are known, but were not in it any more.
#[derive(Default)]
#[repr(C)]
pub struct Crowding {
    walked: u32,
    /// Of these, stacks that were known.
    known: u32,
    /// How often it was full of such, less how often of others.
    full: u8,
    /// There is nothing larger.
    is_largest: bool,
}

impl Crowding {
    const PATIENCE: u8 = if cfg!(test) { 2 } else { 16 };

    /// A stack was walked, in part at least.
    #[inline(always)]
    pub fn walked(&mut self, known: bool) {
        self.walked += 1;
        self.known += u32::from(known);
    }

    /// The memo is full.
    pub fn is_full(&mut self) {
        let most_are_known = u64::from(self.known) * 4 >= u64::from(self.walked) * 3;
        self.full = if most_are_known { (self.full + 1).min(Self::PATIENCE) } else { self.full.saturating_sub(2) };
        (self.walked, self.known) = (0, 0);
    }

    pub const fn wants_more(&self) -> bool {
        self.full >= Self::PATIENCE && !self.is_largest
    }

    /// There is more room, or there is none (false).
    pub fn has_grown(&mut self, grown: bool) {
        self.full = 0;
        self.is_largest |= !grown;
    }
}
