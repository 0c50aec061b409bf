//! How a walk is written down, to be an entry.
#![allow(unsafe_code)] // writes where there is room

use super::check::{Check, Checks};
use crate::record::frames::Node;
use crate::unwind::arch::{Registers, Rule};

/// Watches a walk.
pub(in crate::unwind) trait Watch {
    /// It begins at this frame.
    fn first(&mut self, node: &Node, hash: u64);
    /// A step by `rule` led from the registers `before` to `after`, and to the frame of this node; `hash` is that of the walk's frames, with
    /// this one.
    fn step(&mut self, rule: Rule, before: &Registers, after: &Registers, pc: usize, node: &Node, hash: u64);
}

/// Watches nothing.
pub(in crate::unwind) struct Nobody;
impl Watch for Nobody {
    #[inline(always)]
    fn first(&mut self, _: &Node, _: u64) {}
    #[inline(always)]
    fn step(&mut self, _: Rule, _: &Registers, _: &Registers, _: usize, _: &Node, _: u64) {}
}

/// Writes down what to check.
pub(super) struct Recorder<'m> {
    pub checks: &'m mut Checks,
    /// Where its checks begin, and how many there is room for.
    pub at: usize,
    pub room: usize,
    /// Where [`NodeCache::fp`] lies.
    pub register: usize,
    pub used: usize,
    /// Of the frames so far.
    pub frames: usize,
    pub hash: u64,
    /// Hash and id of the first.
    pub first: (u64, u32),
    /// There was no room.
    pub lost: bool,
}

impl Recorder<'_> {
    #[inline(always)]
    fn push(&mut self, check: Option<Check>) {
        match check.filter(|_| self.used < self.room) {
            Some(check) => {
                // SAFETY: there is room for so many behind `at`.
                unsafe { self.checks.set(self.at + self.used, check.counted(self.frames, self.hash)) };
                self.used += 1;
            }
            None => self.lost = true,
        }
    }
}

impl Watch for Recorder<'_> {
    fn first(&mut self, node: &Node, hash: u64) {
        self.first = (hash, node.id());
        (self.frames, self.hash) = (1, hash);
    }

    #[inline(always)]
    fn step(&mut self, rule: Rule, before: &Registers, after: &Registers, pc: usize, node: &Node, hash: u64) {
        if !rule.is_plain() {
            if rule.uses_fp() {
                let place = if before.fp_from == 0 { self.register } else { before.fp_from };
                self.push(Some(Check::word(before.fp, place)));
            }
            if let Some(slot) = rule.cfa_slot(before) {
                self.push(Some(Check::word(after.sp, slot)));
            }
        }
        (self.frames, self.hash) = (self.frames + 1, hash);
        self.push(Check::frame(pc, after.sp - 8, node, after.fp_from));
    }
}
