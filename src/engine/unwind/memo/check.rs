//! What must be found on the stack for an entry to hold: words and their places.
#![allow(unsafe_code)] // reads the live stack

use super::super::arch::Rule;
use super::super::walk::NodeCache;
use super::room::Table;
use crate::record::frames::Node;
use core::sync::atomic::Ordering::Relaxed;

/// What must be found at a place for the stack to be the same. (Entries are found by their stack pointer: the same stack has the same
/// addresses.)
#[derive(Clone, Copy)]
#[repr(C)]
pub(super) struct Slot {
    pub value: usize,
    /// An address in the stack, or that of [`NodeCache::fp`].
    pub place: usize,
}

/// What is known of the frame behind a slot.
#[derive(Clone, Copy)]
#[repr(C)]
pub(super) struct About {
    /// The hash of all frames of the entry up to this one.
    pub hash: u64,
    /// Bits 0 to 23: the node of the frame behind this return address. 24 to 30: the entry's frames up to this one. 31: no return
    /// address, but a word that says where a frame lies. Above: how many words below its place the frame pointer of the frame behind
    /// it was saved; 0: never.
    bits: u64,
}

impl About {
    const ID: u64 = (1 << 24) - 1;
    const FRAMES: u32 = 24;
    const WORD: u64 = 1 << 31;
    const BELOW: u32 = 32;

    pub const fn is_word(self) -> bool {
        self.bits & Self::WORD != 0
    }
    pub const fn id(self) -> u32 {
        (self.bits & Self::ID) as u32
    }
    pub const fn frames(self) -> usize {
        (self.bits >> Self::FRAMES) as usize & 127
    }
}

/// Both.
#[derive(Clone, Copy)]
pub(super) struct Check {
    pub slot: Slot,
    pub about: About,
}

impl Check {
    pub const fn word(value: usize, place: usize) -> Self {
        Self { slot: Slot { value, place }, about: About { hash: 0, bits: About::WORD } }
    }
    /// `None` if the frame pointer was saved too far away.
    pub fn frame(value: usize, place: usize, node: &Node, fp_from: usize) -> Option<Self> {
        Self { slot: Slot { value, place }, about: About { hash: 0, bits: node.id().into() } }.with_fp_from(fp_from)
    }
    pub fn with_fp_from(mut self, fp_from: usize) -> Option<Self> {
        if fp_from != 0 {
            let below = (self.slot.place.wrapping_sub(fp_from) / 8) as u64;
            if !(1..1 << About::BELOW).contains(&below) {
                return None;
            }
            self.about.bits |= below << About::BELOW;
        }
        Some(self)
    }
    /// Where the frame pointer of the frame behind this return address lies; 0: it is still the register's.
    pub const fn fp_from(&self) -> usize {
        match (self.about.bits >> About::BELOW) as usize {
            0 => 0,
            below => self.slot.place - below * 8,
        }
    }
    /// The same of another frame, at another return address.
    pub const fn with_frame(mut self, value: usize, id: u32) -> Self {
        self.slot.value = value;
        self.about.bits = self.about.bits >> About::BELOW << About::BELOW | id as u64;
        self
    }
    /// The same as the check of so many frames, which have this hash.
    pub const fn counted(mut self, frames: usize, hash: u64) -> Self {
        self.about.bits = self.about.bits & !(127 << About::FRAMES) | (frames as u64) << About::FRAMES;
        self.about.hash = hash;
        self
    }
}

/// All checks of a memo. What a known stack reads, its slots, lies apart from what is needed where something differs: it takes half as
/// many lines of the cache from the program.
#[repr(C)]
pub(super) struct Checks {
    pub slots: Table<Slot>,
    pub abouts: Table<About>,
}

impl Checks {
    /// Those of an entry.
    #[inline(always)]
    pub fn of(&self, at: u32, len: u16) -> Entrys<'_> {
        let range = at as usize..at as usize + usize::from(len);
        let slots = &self.slots[range.clone()];
        // SAFETY: both tables have the same length.
        Entrys { slots, abouts: unsafe { self.abouts.get_unchecked(range) } }
    }
    #[inline(always)]
    pub fn get(&self, at: usize) -> Check {
        Check { slot: self.slots[at], about: self.abouts[at] }
    }
    /// # Safety
    /// There is such a place.
    #[inline(always)]
    pub unsafe fn set(&mut self, at: usize, check: Check) {
        // SAFETY: by this function's own contract, for the two tables of one length.
        unsafe {
            *self.slots.get_unchecked_mut(at) = check.slot;
            *self.abouts.get_unchecked_mut(at) = check.about;
        }
    }
    /// The slots of an entry.
    ///
    /// # Safety
    /// It has so many checks there.
    #[inline(always)]
    pub unsafe fn slots_of(&self, at: u32, len: u16) -> &[Slot] {
        // SAFETY: by this function's own contract.
        unsafe { self.slots.get_unchecked(at as usize..at as usize + usize::from(len)) }
    }
}

/// The checks of one entry.
#[derive(Clone, Copy)]
pub(super) struct Entrys<'m> {
    pub slots: &'m [Slot],
    pub abouts: &'m [About],
}

impl Entrys<'_> {
    pub const fn len(&self) -> usize {
        self.slots.len()
    }
    #[inline(always)]
    pub fn get(&self, at: usize) -> Option<Check> {
        Some(Check { slot: *self.slots.get(at)?, about: *self.abouts.get(at)? })
    }
}

#[inline(always)]
pub(super) unsafe fn read(addr: usize) -> usize {
    // SAFETY: the caller names a word of the live stack.
    unsafe { (addr as *const usize).read() }
}

/// The first slot where something else is; `None`: there is none.
///
/// # Safety
/// `slots` belong to an entry of the state of a live frame, whose frame pointer is in the thread's [`NodeCache::fp`].
#[inline(always)]
pub(super) unsafe fn verify(slots: &[Slot]) -> Option<usize> {
    // SAFETY: all slots before were passed, so the word is where the tables say.
    let differs = |slot: &Slot| unsafe { read(slot.place) } != slot.value;
    let (fours, rest) = slots.as_chunks::<4>();
    let failed = 'found: {
        for four in fours {
            for slot in four {
                if differs(slot) {
                    break 'found Some(slot);
                }
            }
        }
        rest.iter().find(|slot| differs(slot))
    };
    failed.map(|slot| (core::ptr::from_ref(slot).addr() - slots.as_ptr().addr()) / size_of::<Slot>())
}

/// The node of another frame than that of the check, if what is behind that one would be behind this one, too: mostly the same function
/// at another of its calls.
#[inline(always)]
pub(super) fn sibling(cache: &NodeCache, pc: usize, check: &Check, next: Option<Check>) -> Option<&'static Node> {
    let (next, node) = (next.filter(|next| !next.about.is_word())?, cache.get(pc as u64)?);
    let caller = Rule(node.rule.load(Relaxed)).plain_caller(check.slot.place + 8, check.fp_from())?;
    (caller == (next.slot.place, next.fp_from())).then_some(node)
}
