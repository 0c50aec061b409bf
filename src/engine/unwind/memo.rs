//! The *memo* layer: whole stacks of a thread, found again by where they begin and verified slot by slot.
//!
//! An entry is found by the state of its first frame (return address and stack pointer) and holds the slots at which the
//! outer return addresses lay, and those addresses. On a hit every slot is read again and compared, from the inside out. Equal
//! everywhere means the same stack, by induction: a return address and the frame's stack pointer determine, by the unwind
//! tables, where the caller's return address lies. Where a table takes the frame pointer for its base, the frame pointer is
//! compared too. The reading is safe for the same reason: a slot is read only after all that says where it lies was found
//! unchanged.
//!
//! At the first difference the frames before it stand, and the search goes on with the frame that was found there instead. A
//! hit takes about 6 ns and 0.4 ns for each frame. Stacks through signal handlers or code without a file are never kept, and
//! a library that is closed empties all memos.
#![allow(unsafe_code)] // reads the live stack

use super::arch::{Registers, Rule};
use super::last::Last;
use super::walk::{NodeCache, Trace};
use super::{OwnStack, Start, Unwinder};
use crate::StackId;
use crate::arena::Zeroed;
use crate::record::depot::{MAX_DEPTH, POWERS};
use core::sync::atomic::Ordering::Relaxed;

const ENTRIES: usize = 4096;
/// States that were missed once: only the second time is a stack kept, so that passing ones do not push others out.
const MISSED: usize = 2048;
const CHECKS: usize = 3 << 13;
/// An entry that was wrong so often goes.
const PATIENCE: u8 = 64;
/// A frame needs three at most.
const MOST: usize = 3 * MAX_DEPTH;

/// What must be found at a place for the stack to be the same. (Entries are found by their stack pointer: the same stack has the same
/// addresses.)
#[derive(Clone, Copy)]
#[repr(C)]
struct Check {
    value: usize,
    /// An address in the stack, or that of [`NodeCache::fp`].
    place: usize,
    /// The hash of all frames of the entry up to this one.
    hash: u64,
    /// Bit 0: no return address, but a word that says where a frame lies. Bits 3 to 47: where the frame pointer of the frame behind this
    /// return address lies; 0 if it was never saved. Above: the frames up to this one.
    about: usize,
}

impl Check {
    const WORD: usize = 1;
    const FRAMES: u32 = 48;

    const fn fp_from(&self) -> usize {
        self.about & ((1 << Self::FRAMES) - 8)
    }
    const fn frames(&self) -> usize {
        self.about >> Self::FRAMES
    }
    /// Something else is there.
    const fn fails(&self, at: usize) -> Verified {
        if self.about & Self::WORD == 0 { Verified::Until(at) } else { Verified::Moved }
    }
}

/// A stack, or the outer part of one.
#[derive(Clone, Copy)]
#[repr(C)]
struct Entry {
    pc: usize,
    sp: usize,
    /// Of the first frame, and of all.
    first_hash: u64,
    hash: u64,
    at: u32,
    len: u16,
    frames: u8,
    /// It ends with the outermost frame, as the unwind tables say.
    whole: bool,
    /// How often something differed. An entry that is wrong for long makes place for what there is now.
    wrong: u8,
    /// Stack id of the entry as a whole stack; 0: not known.
    id: u32,
    stamp: u32,
}

impl Entry {
    /// The frames that stand if these checks do, `room` at most, and their hash: the state's own, and those behind the return addresses.
    #[inline(always)]
    fn up_to(&self, checks: &[Check], room: usize) -> (usize, u64) {
        match checks.iter().rfind(|check| check.frames() <= room) {
            Some(check) => (check.frames(), check.hash),
            None => (1, self.first_hash),
        }
    }
}

/// One thread's. About 1 MiB of address space; only what is used is ever touched.
#[repr(C)]
pub struct Memo {
    entries: [Entry; ENTRIES],
    missed: [u32; MISSED],
    checks: [Check; CHECKS],
    last: Last,
    used: usize,
    /// Entries with another one are empty.
    stamp: u32,
    generation: u32,
}

// SAFETY: integers and `false` are valid when zero; entries with stamp 0 are never looked at, since `stamp` begins at 1.
unsafe impl Zeroed for Memo {}

/// What was found out about a stack.
#[derive(Clone, Copy, Debug)]
pub struct Pieced {
    pub hash: u64,
    /// The trace holds the whole stack.
    pub traced: bool,
    /// The entry that is to know the id.
    entry: Option<usize>,
}

impl Memo {
    fn empty(&mut self, generation: u32) {
        self.stamp = self.stamp.wrapping_add(1).max(1);
        self.used = 0;
        self.last.empty();
        self.generation = generation;
    }

    /// Tells the id of what was pieced together.
    pub fn learn(&mut self, pieced: &Pieced, id: u32) {
        if let Some(entry) = pieced.entry {
            self.entries[entry].id = id;
        }
    }

    #[inline(always)]
    fn find(&self, pc: usize, sp: usize) -> Result<usize, u64> {
        let hash = (pc as u64 ^ (sp as u64).rotate_left(29)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let at = (hash >> 52) as usize;
        let entry = &self.entries[at];
        if entry.pc == pc && entry.sp == sp && entry.stamp == self.stamp { Ok(at) } else { Err(hash) }
    }

    /// Whether a state of this hash is missed for the second time.
    fn missed_before(&mut self, hash: u64) -> bool {
        let place = &mut self.missed[(hash >> 41) as usize % MISSED];
        let tag = hash as u32 | 1;
        core::mem::replace(place, tag) == tag
    }
}

const _: () = assert!(ENTRIES == 1 << (64 - 52));

/// Where verification has come to.
enum Verified {
    All,
    /// The return address at this check differs.
    Until(usize),
    /// A frame pointer differs: nothing is said of what follows.
    Moved,
}

#[inline(always)]
unsafe fn read(addr: usize) -> usize {
    // SAFETY: the caller names a word of the live stack.
    unsafe { (addr as *const usize).read() }
}

/// # Safety
/// `checks` belong to an entry of the state of a live frame, whose frame pointer is in the thread's [`NodeCache::fp`].
#[inline(always)]
unsafe fn verify(checks: &[Check]) -> Verified {
    // SAFETY: all checks before were passed, so the word is where the tables say.
    let holds = |check: &Check| unsafe { read(check.place) } == check.value;
    let (pairs, rest) = checks.as_chunks::<2>();
    for (at, [first, second]) in pairs.iter().enumerate() {
        if !holds(first) {
            return first.fails(at * 2);
        }
        if !holds(second) {
            return second.fails(at * 2 + 1);
        }
    }
    match rest {
        [check] if !holds(check) => check.fails(checks.len() - 1),
        _ => Verified::All,
    }
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
        let entry = &memo.entries[memo.find(start.pc, start.sp).ok()?];
        if !entry.whole && usize::from(entry.frames) != depth {
            return None;
        }
        // SAFETY: `fill` wrote so many checks there.
        let checks =
            unsafe { memo.checks.get_unchecked(entry.at as usize..entry.at as usize + usize::from(entry.len)) };
        // SAFETY: `start` is the entry's state.
        let same = matches!(unsafe { verify(checks) }, Verified::All);
        StackId::new(if same { entry.id } else { 0 })
    }

    /// The hash of the stack from `start`, pieced together from what the memo knows. If `traced`, the trace holds the stack; if
    /// not, [`Unwinder::walk`] will give it.
    ///
    /// # Safety
    /// As for [`Unwinder::walk`]; `memo` is the calling thread's, and nobody else uses it meanwhile.
    #[inline(never)]
    pub unsafe fn piece_together(
        &self,
        memo: &mut Memo,
        start: Start,
        stack: OwnStack,
        depth: usize,
        cache: &NodeCache,
        trace: &mut Trace,
    ) -> Pieced {
        let generation = self.frames.generation();
        if memo.generation != generation || memo.stamp == 0 {
            memo.empty(generation);
        }
        let mut state = start;
        let (mut hash, mut frames) = (0u64, 0);
        loop {
            let at = match memo.find(state.pc, state.sp) {
                Ok(at) => at,
                Err(missed) => {
                    // SAFETY: `state` is that of a live frame: at first by the caller's promise, then because all slots up to
                    // it were verified.
                    let entry = unsafe { self.fill(memo, missed, state, stack, depth - frames, cache, trace) };
                    let whole = frames == 0;
                    let hash = hash.wrapping_add(POWERS[frames].wrapping_mul(trace.hash));
                    return Pieced { hash, traced: whole, entry: entry.filter(|_| whole) };
                }
            };
            cache.fp.store(state.fp, Relaxed);
            let entry = memo.entries[at];
            let checks = &memo.checks[entry.at as usize..entry.at as usize + usize::from(entry.len)];
            // SAFETY: as above.
            let (until, fresh) = match unsafe { verify(checks) } {
                Verified::All => (checks.len(), None),
                // SAFETY: the slot was read by `verify`.
                Verified::Until(at) => (at, Some(unsafe { read(checks[at].place) })),
                Verified::Moved => break,
            };
            if until < checks.len() {
                let entry = &mut memo.entries[at];
                entry.wrong += 1;
                if entry.wrong >= PATIENCE {
                    entry.stamp = 0;
                }
            }
            // The frames that stand: the state's own, and those behind the return addresses before `until`.
            let (stand, part) = entry.up_to(&checks[..until], depth - frames);
            hash = hash.wrapping_add(POWERS[frames].wrapping_mul(part));
            frames += stand;
            let next = match fresh {
                _ if frames >= depth => None,
                None if entry.whole => None,
                // The entry was cut at the depth that it had left: on from its last frame, which is counted again.
                None => break,
                Some(pc) => Some((pc, checks[until])),
            };
            let Some((pc, check)) = next else {
                let alone = stand == frames && fresh.is_none();
                return Pieced { hash, traced: false, entry: alone.then_some(at) };
            };
            if pc < 4096 {
                break;
            }
            let fp = match check.fp_from() {
                0 => state.fp,
                // SAFETY: the word lies in a frame that was verified.
                place => unsafe { read(place) },
            };
            state = Start { pc, sp: check.place + 8, fp };
        }
        // SAFETY: as for this function.
        unsafe { self.walk_again(memo, start, stack, depth, cache, trace) };
        Pieced { hash: trace.hash, traced: true, entry: None }
    }

    /// As [`Unwinder::walk`], along the stack that the thread walked before.
    ///
    /// # Safety
    /// As for [`Unwinder::walk`]; `memo` is the calling thread's, and nobody else uses it meanwhile.
    #[inline(never)]
    pub unsafe fn walk_again(
        &self,
        memo: &mut Memo,
        start: Start,
        stack: OwnStack,
        depth: usize,
        cache: &NodeCache,
        trace: &mut Trace,
    ) {
        // SAFETY: by this function's own contract.
        unsafe { self.walk_with(start, stack, depth, cache, trace, &mut Nobody, Some(&mut memo.last)) };
    }

    #[allow(clippy::too_many_arguments)] // those of a walk, and where to keep it
    /// Walks from a state, and keeps what it finds if the state was missed before. Gives the entry.
    unsafe fn fill(
        &self,
        memo: &mut Memo,
        missed: u64,
        state: Start,
        stack: OwnStack,
        depth: usize,
        cache: &NodeCache,
        trace: &mut Trace,
    ) -> Option<usize> {
        if !memo.missed_before(missed) {
            // SAFETY: by this function's own contract.
            unsafe { self.walk_again(memo, state, stack, depth, cache, trace) };
            return None;
        }
        if memo.used + MOST > CHECKS {
            memo.empty(memo.generation);
        }
        let at = memo.used;
        let mut recorder = Recorder {
            checks: &mut memo.checks[at..at + MOST],
            register: (&raw const cache.fp).expose_provenance(),
            used: 0,
            frames: 1,
            first_hash: None,
            lost: false,
        };
        // SAFETY: by this function's own contract.
        let ended = unsafe { self.walk_with(state, stack, depth, cache, trace, &mut recorder, Some(&mut memo.last)) };
        let Recorder { used, first_hash, lost, .. } = recorder;
        if lost || trace.unusual || used == 0 {
            return None;
        }
        memo.used += used;
        let place = (missed >> 52) as usize;
        memo.entries[place] = Entry {
            pc: state.pc,
            sp: state.sp,
            first_hash: first_hash.unwrap_or(trace.hash),
            hash: trace.hash,
            at: at as u32,
            len: used as u16,
            frames: trace.len as u8,
            whole: ended,
            wrong: 0,
            id: 0,
            stamp: memo.stamp,
        };
        Some(place)
    }
}

/// Watches a walk.
pub(super) trait Watch {
    /// A step by `rule` led from the registers `before` to `after`; the frames up to the one before have the hash `inner`, with
    /// the one that was reached `outer`.
    fn step(&mut self, rule: Rule, before: &Registers, after: &Registers, pc: usize, inner: u64, outer: u64);
    /// The same of a step by a plain rule, to the frame whose return address, `pc`, lies at `slot`. Its frame pointer was read at
    /// `fp_from`, or never (0).
    fn frame(&mut self, slot: usize, fp_from: usize, pc: usize, inner: u64, outer: u64);
}

/// Watches nothing.
pub(super) struct Nobody;
impl Watch for Nobody {
    #[inline(always)]
    fn step(&mut self, _: Rule, _: &Registers, _: &Registers, _: usize, _: u64, _: u64) {}
    #[inline(always)]
    fn frame(&mut self, _: usize, _: usize, _: usize, _: u64, _: u64) {}
}

/// Writes down what to check.
struct Recorder<'m> {
    checks: &'m mut [Check],
    /// Where [`NodeCache::fp`] lies.
    register: usize,
    used: usize,
    frames: usize,
    first_hash: Option<u64>,
    /// There was no room.
    lost: bool,
}

impl Recorder<'_> {
    #[inline(always)]
    fn push(&mut self, value: usize, place: usize, hash: u64, about: usize) {
        match self.checks.get_mut(self.used) {
            Some(check) => {
                *check = Check { value, place, hash, about: about | self.frames << Check::FRAMES };
                self.used += 1;
            }
            None => self.lost = true,
        }
    }
}

impl Watch for Recorder<'_> {
    fn step(&mut self, rule: Rule, before: &Registers, after: &Registers, pc: usize, inner: u64, outer: u64) {
        if rule.uses_fp() {
            let place = if before.fp_from == 0 { self.register } else { before.fp_from };
            self.push(before.fp, place, inner, Check::WORD);
        }
        if let Some(slot) = rule.cfa_slot(before) {
            self.push(after.sp, slot, inner, Check::WORD);
        }
        self.frame(after.sp - 8, after.fp_from, pc, inner, outer);
    }

    #[inline(always)]
    fn frame(&mut self, slot: usize, fp_from: usize, pc: usize, inner: u64, outer: u64) {
        self.first_hash.get_or_insert(inner);
        self.frames += 1;
        self.push(pc, slot, outer, fp_from);
    }
}

#[cfg(test)]
mod tests;
