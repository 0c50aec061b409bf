//! The *last* layer: a thread's next stack is mostly the one that it walked last. As long as it is, a frame's caller is found where it
//! was, and who it is takes no rule and no search; what differs is walked.
//!
//! Two frames are the same if their return addresses are, and lie in the same place. Then the caller's return address lies in the same
//! place, too, by a rule that goes by the stack pointer alone. Others are followed as if there were no stack before.
#![allow(unsafe_code)] // reads the live stack, keeps nodes by address

use super::arch::{Registers, Rule};
use super::memo::Watch;
use super::walk::Trace;
use crate::record::depot::{MAX_DEPTH, POWERS};
use crate::record::frames::Node;
use core::sync::atomic::Ordering::Relaxed;

/// The stack that a thread walked last.
pub struct Last {
    /// The frames of the stack, as in its trace, and room for the next.
    places: [[Place; MAX_DEPTH]; 2],
    len: usize,
    /// Which of the two it is.
    now: usize,
}

/// A frame of it. All of one, in 32 bytes, is copied as long as nothing differs.
#[derive(Clone, Copy)]
#[repr(C)]
pub(super) struct Place {
    /// Where its return address lies.
    slot: usize,
    /// Its node's address, hash and id.
    node: usize,
    hash: u64,
    id: u32,
    /// How far below `slot` the step that led to it read the frame pointer; 0: that step left it alone. And [`PLAIN`].
    fp_below: u32,
}

/// Its rule says where its caller is by the stack pointer alone.
const PLAIN: u32 = 1;

impl Place {
    pub(super) fn new(slot: usize, node: &'static Node, hash: u64, fp_from: usize) -> Self {
        let below = slot.wrapping_sub(fp_from);
        // What does not fit is walked by its rule.
        let fits = fp_from == 0 || below < 1 << 31 && below.is_multiple_of(8);
        let plain = u32::from(fits && Rule(node.rule.load(Relaxed)).is_plain());
        let fp_below = if fp_from == 0 || !fits { plain } else { below as u32 | plain };
        Self { slot, node: core::ptr::from_ref(node) as usize, hash, id: node.id(), fp_below }
    }
}

// SAFETY: integers are valid when zero; `len` 0 is none.
unsafe impl crate::arena::Zeroed for Last {}

impl Last {
    /// A walk along it has ended.
    pub(super) fn turn(&mut self, len: usize) {
        (self.len, self.now) = (len, 1 - self.now);
    }

    /// Forgets it.
    pub(super) fn empty(&mut self) {
        self.len = 0;
    }
}

/// How far a walk has come along the stack before.
pub(super) struct Along<'l> {
    before: &'l [Place],
    now: &'l mut [Place; MAX_DEPTH],
    /// The frame that comes next in the one before.
    at: usize,
    /// Whether the walk's frame is the one before that, and its rule plain.
    pub(super) joined: bool,
}

impl<'l> Along<'l> {
    pub(super) fn new(last: &'l mut Last) -> Self {
        let [first, second] = &mut last.places;
        let (before, now) = if last.now == 0 { (first, second) } else { (second, first) };
        Self { before: &before[..last.len.min(MAX_DEPTH)], now, at: 0, joined: false }
    }

    /// The walk has come to a frame by a step.
    #[inline(always)]
    pub(super) fn reached(&mut self, frame: usize, place: Place) {
        while self.before.get(self.at).is_some_and(|before| before.slot < place.slot) {
            self.at += 1;
        }
        let same = |before: &Place| before.slot == place.slot && before.node == place.node;
        self.joined = place.fp_below & PLAIN != 0 && self.before.get(self.at).is_some_and(same);
        self.at += usize::from(self.joined);
        if let Some(now) = self.now.get_mut(frame) {
            *now = place;
        }
    }

    /// From the walk's frame, which is one of the stack before, on to its callers as long as they are the same; gives the last.
    /// `registers` become those of that one.
    ///
    /// # Safety
    /// `registers` are those of the walk's frame, which is live.
    #[inline(always)]
    pub(super) unsafe fn run(
        &mut self,
        registers: &mut Registers,
        depth: usize,
        trace: &mut Trace,
        watch: &mut impl Watch,
    ) -> Option<&'static Node> {
        self.joined = false;
        let (mut len, mut hash, mut fp_from, mut last) = (trace.len, trace.hash, registers.fp_from, None);
        let room = self.now[..depth].get_mut(len..)?.iter_mut().zip(trace.ids.get_mut(len..)?);
        for ((place, (now, id)), power) in self.before.get(self.at..)?.iter().zip(room).zip(&POWERS[len..]) {
            // SAFETY: nodes are never unmapped.
            let node = unsafe { &*(place.node as *const Node) };
            // SAFETY: the same code with the same stack pointer keeps its return address in the same place of a live frame.
            if unsafe { read(place.slot) } as u64 != node.key() {
                break;
            }
            *now = *place;
            *id = place.id;
            let inner = hash;
            hash = hash.wrapping_add(power.wrapping_mul(place.hash));
            let below = place.fp_below & !PLAIN;
            if below != 0 {
                fp_from = place.slot - below as usize;
            }
            watch.frame(place.slot, fp_from, node.key() as usize, inner, hash);
            len += 1;
            last = Some((place.slot, node));
            if place.fp_below & PLAIN == 0 {
                break;
            }
        }
        let (slot, node) = last?;
        self.at += len - trace.len;
        (trace.len, trace.hash) = (len, hash);
        if fp_from != registers.fp_from {
            // SAFETY: as above, of the frame pointer.
            registers.fp = unsafe { read(fp_from) };
            registers.fp_from = fp_from;
        }
        registers.sp = slot + 8;
        Some(node)
    }
}

#[inline(always)]
unsafe fn read(addr: usize) -> usize {
    // SAFETY: the caller names a word of the live stack.
    unsafe { (addr as *const usize).read() }
}
