//! What must be found on the stack for an entry to hold: words and their places.
#![allow(unsafe_code)] // reads the live stack

use super::super::arch::Rule;
use super::super::walk::NodeCache;
use crate::record::frames::Node;
use core::sync::atomic::Ordering::Relaxed;

/// What must be found at a place for the stack to be the same. (Entries are found by their stack pointer: the same stack has the same
/// addresses.)
#[derive(Clone, Copy)]
#[repr(C)]
pub(super) struct Check {
    pub value: usize,
    /// An address in the stack, or that of [`NodeCache::fp`].
    pub place: usize,
    /// The hash of all frames of the entry up to this one.
    pub hash: u64,
    /// Bits 0 to 23: the node of the frame behind this return address. 24 to 30: the entry's frames up to this one. 31: no return
    /// address, but a word that says where a frame lies. Above: how many words below `place` the frame pointer of the frame behind
    /// it was saved; 0: never.
    pub about: u64,
}

impl Check {
    const ID: u64 = (1 << 24) - 1;
    const FRAMES: u32 = 24;
    const WORD: u64 = 1 << 31;
    const BELOW: u32 = 32;
    pub const BELOWS: u64 = !0 << Self::BELOW;

    pub const fn word(value: usize, place: usize) -> Self {
        Self { value, place, hash: 0, about: Self::WORD }
    }
    /// `None` if the frame pointer was saved too far away.
    pub fn frame(value: usize, place: usize, node: &Node, fp_from: usize) -> Option<Self> {
        Self { value, place, hash: 0, about: node.id().into() }.with_fp_from(fp_from)
    }
    pub fn with_fp_from(mut self, fp_from: usize) -> Option<Self> {
        if fp_from != 0 {
            let below = (self.place.wrapping_sub(fp_from) / 8) as u64;
            if !(1..1 << Self::BELOW).contains(&below) {
                return None;
            }
            self.about |= below << Self::BELOW;
        }
        Some(self)
    }
    pub const fn is_word(&self) -> bool {
        self.about & Self::WORD != 0
    }
    pub const fn id(&self) -> u32 {
        (self.about & Self::ID) as u32
    }
    pub const fn frames(&self) -> usize {
        (self.about >> Self::FRAMES) as usize & 127
    }
    /// Where the frame pointer of the frame behind this return address lies; 0: it is still the register's.
    pub const fn fp_from(&self) -> usize {
        match (self.about >> Self::BELOW) as usize {
            0 => 0,
            below => self.place - below * 8,
        }
    }
    /// The same as the check of so many frames.
    pub const fn counted(mut self, frames: usize) -> Self {
        self.about = self.about & !(127 << Self::FRAMES) | (frames as u64) << Self::FRAMES;
        self
    }
    /// Something else is there.
    const fn fails(&self, at: usize) -> Verified {
        if self.is_word() { Verified::Moved } else { Verified::Until(at) }
    }
}

/// Where verification has come to.
pub(super) enum Verified {
    All,
    /// The return address at this check differs.
    Until(usize),
    /// A frame pointer differs: nothing is said of what follows.
    Moved,
}

#[inline(always)]
pub(super) unsafe fn read(addr: usize) -> usize {
    // SAFETY: the caller names a word of the live stack.
    unsafe { (addr as *const usize).read() }
}

/// # Safety
/// `checks` belong to an entry of the state of a live frame, whose frame pointer is in the thread's [`NodeCache::fp`].
#[inline(always)]
pub(super) unsafe fn verify(checks: &[Check]) -> Verified {
    // SAFETY: all checks before were passed, so the word is where the tables say.
    let differs = |check: &Check| unsafe { read(check.place) } != check.value;
    let (fours, rest) = checks.as_chunks::<4>();
    let failed = 'found: {
        for four in fours {
            for check in four {
                if differs(check) {
                    break 'found Some(check);
                }
            }
        }
        rest.iter().find(|check| differs(check))
    };
    match failed {
        None => Verified::All,
        Some(check) => {
            let at = (core::ptr::from_ref(check).addr() - checks.as_ptr().addr()) / size_of::<Check>();
            check.fails(at)
        }
    }
}

/// The node of another frame than that of the check, if what is behind that one would be behind this one, too: mostly the same function
/// at another of its calls.
#[inline(always)]
pub(super) fn sibling(cache: &NodeCache, pc: usize, check: &Check, next: Option<&Check>) -> Option<&'static Node> {
    let (next, node) = (next.filter(|next| !next.is_word())?, cache.get(pc as u64)?);
    let caller = Rule(node.rule.load(Relaxed)).plain_caller(check.place + 8, check.fp_from())?;
    (caller == (next.place, next.fp_from())).then_some(node)
}
