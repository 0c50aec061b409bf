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
use super::walk::{NodeCache, Trace};
use super::{OwnStack, Start, Unwinder};
use crate::StackId;
use crate::arena::Zeroed;
use crate::record::depot::{MAX_DEPTH, POWERS};

const ENTRIES: usize = 4096;
/// States that were missed once: only the second time is a stack kept, so that passing ones do not push others out.
const MISSED: usize = 2048;
const CHECKS: usize = 1 << 15;
/// An entry that was wrong so often goes.
const PATIENCE: u8 = 64;
/// A frame needs three at most.
const MOST: usize = 3 * MAX_DEPTH;

/// What must be found at a place for the stack to be the same.
#[derive(Clone, Copy)]
#[repr(C)]
struct Check {
    value: usize,
    /// The hash of all frames of the entry up to this one.
    hash: u64,
    /// From the entry's stack pointer, a multiple of 8, and the [`Kind`] in its low bits.
    place: u32,
    /// Where the frame pointer of the frame behind this return address lies; [`REGISTER`] if it was never saved.
    fp: u32,
}

/// The word there is a return address.
const RETURN: u32 = 0;
/// The word there lies `value` above the entry's stack pointer.
const RELATIVE: u32 = 1;
/// The frame pointer register does.
const OF_REGISTER: u32 = 2;
const REGISTER: u32 = u32::MAX;

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

/// One thread's. About 1.8 MiB of address space; only what is used is ever touched.
#[repr(C)]
pub struct Memo {
    entries: [Entry; ENTRIES],
    missed: [u32; MISSED],
    checks: [Check; CHECKS],
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
/// `checks` belong to an entry of the state `sp`, `fp` of a live frame.
#[inline(always)]
unsafe fn verify(checks: &[Check], sp: usize, fp: usize) -> Verified {
    for (at, check) in checks.iter().enumerate() {
        let kind = check.place & 7;
        if kind == RETURN {
            // SAFETY: all checks before were passed, so the slot is where the tables say.
            if unsafe { read(sp + check.place as usize) } != check.value {
                return Verified::Until(at);
            }
            continue;
        }
        // SAFETY: as above.
        if !unsafe { frame_pointer_holds(check, sp, fp) } {
            return Verified::Moved;
        }
    }
    Verified::All
}

/// By itself, since most code keeps none, and the loop above is the hottest of all.
///
/// # Safety
/// As for [`verify`].
#[inline(never)]
unsafe fn frame_pointer_holds(check: &Check, sp: usize, fp: usize) -> bool {
    let kind = check.place & 7;
    // SAFETY: by this function's own contract.
    let word = if kind == OF_REGISTER { fp } else { unsafe { read(sp + (check.place & !7) as usize) } };
    word == sp.wrapping_add(check.value)
}

impl Unwinder {
    /// The id of the stack from `start`, if the memo has it as a whole.
    ///
    /// # Safety
    /// `start` is the state of a live frame of the calling thread, whose memo this is.
    #[inline(always)]
    pub unsafe fn recall(&self, memo: &mut Memo, start: Start, depth: usize) -> Option<StackId> {
        if memo.generation != self.frames.generation() {
            return None;
        }
        let entry = &memo.entries[memo.find(start.pc, start.sp).ok()?];
        if !entry.whole && usize::from(entry.frames) != depth {
            return None;
        }
        let checks = memo.checks.get(entry.at as usize..)?.get(..usize::from(entry.len))?;
        // SAFETY: `start` is the entry's state.
        let same = matches!(unsafe { verify(checks, start.sp, start.fp) }, Verified::All);
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
            let entry = memo.entries[at];
            let checks = &memo.checks[entry.at as usize..entry.at as usize + usize::from(entry.len)];
            // SAFETY: as above.
            let (until, fresh) = match unsafe { verify(checks, state.sp, state.fp) } {
                Verified::All => (checks.len(), None),
                // SAFETY: the slot was read by `verify`.
                Verified::Until(at) => (at, Some(unsafe { read(state.sp + checks[at].place as usize) })),
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
            let returns = checks[..until].iter().filter(|check| check.place & 7 == RETURN);
            let room = depth - frames;
            let (mut stand, mut part) = (1, entry.first_hash);
            for check in returns.take(room - 1) {
                stand += 1;
                part = check.hash;
            }
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
            let fp = match check.fp {
                REGISTER => state.fp,
                // SAFETY: the word lies in a frame that was verified.
                place => unsafe { read(state.sp + place as usize) },
            };
            state = Start { pc, sp: state.sp + check.place as usize + 8, fp };
        }
        // SAFETY: as for this function.
        unsafe { self.walk(start, stack, depth, cache, trace) };
        Pieced { hash: trace.hash, traced: true, entry: None }
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
            unsafe { self.walk(state, stack, depth, cache, trace) };
            return None;
        }
        if memo.used + MOST > CHECKS {
            memo.empty(memo.generation);
        }
        let at = memo.used;
        let mut recorder =
            Recorder { sp: state.sp, checks: &mut memo.checks[at..at + MOST], used: 0, first_hash: None, lost: false };
        // SAFETY: by this function's own contract.
        let ended = unsafe { self.walk_with(state, stack, depth, cache, trace, &mut recorder) };
        let (used, first_hash, lost) = (recorder.used, recorder.first_hash, recorder.lost);
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
}

/// Watches nothing.
pub(super) struct Nobody;
impl Watch for Nobody {
    #[inline(always)]
    fn step(&mut self, _: Rule, _: &Registers, _: &Registers, _: usize, _: u64, _: u64) {}
}

/// Writes down what to check.
struct Recorder<'m> {
    sp: usize,
    checks: &'m mut [Check],
    used: usize,
    first_hash: Option<u64>,
    /// Something lies too far away.
    lost: bool,
}

impl Recorder<'_> {
    fn place(&mut self, addr: usize, kind: u32) -> u32 {
        let offset = addr.wrapping_sub(self.sp);
        self.lost |= offset >= 1 << 31 || !offset.is_multiple_of(8);
        offset as u32 | kind
    }
    fn push(&mut self, check: Check) {
        match self.checks.get_mut(self.used) {
            Some(place) => {
                *place = check;
                self.used += 1;
            }
            None => self.lost = true,
        }
    }
}

impl Watch for Recorder<'_> {
    fn step(&mut self, rule: Rule, before: &Registers, after: &Registers, pc: usize, inner: u64, outer: u64) {
        self.first_hash.get_or_insert(inner);
        if rule.uses_fp() {
            let (addr, kind) = if before.fp_from == 0 { (self.sp, OF_REGISTER) } else { (before.fp_from, RELATIVE) };
            let (place, value) = (self.place(addr, kind), before.fp.wrapping_sub(self.sp));
            self.push(Check { value, hash: 0, place, fp: REGISTER });
        }
        if let Some(slot) = rule.cfa_slot(before) {
            let (place, value) = (self.place(slot, RELATIVE), after.sp.wrapping_sub(self.sp));
            self.push(Check { value, hash: 0, place, fp: REGISTER });
        }
        let place = self.place(after.sp - 8, RETURN);
        let fp = if after.fp_from == 0 { REGISTER } else { self.place(after.fp_from, 0) };
        self.push(Check { value: pc, hash: outer, place, fp });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::unwind::walk::tests::{UNWINDER, find};
    use crate::{AddrRange, sys};
    use proptest::prelude::*;
    use std::hint::black_box;

    struct Case {
        memo: &'static mut Memo,
        cache: &'static NodeCache,
        recalled: usize,
        pieced: usize,
        depth: usize,
    }

    fn case(depth: usize) -> Case {
        UNWINDER.set_find(find);
        let [memo] = crate::arena::zeroed::<Memo>(1).unwrap() else { unreachable!() };
        let [cache] = crate::arena::zeroed::<NodeCache>(1).unwrap() else { unreachable!() };
        Case { memo, cache, recalled: 0, pieced: 0, depth }
    }

    /// Recalls this stack; whatever way it goes, the result is that of a walk. Ids stand for hashes.
    #[inline(never)]
    fn compare(case: &mut Case) {
        let (sp, fp, pc): (usize, usize, usize);
        // SAFETY: reads registers only; `pc` is the address of the next instruction.
        unsafe {
            core::arch::asm!("mov {}, rsp", "mov {}, rbp", "lea {}, [rip + 1]", out(reg) sp, out(reg) fp, out(reg) pc)
        };
        // SAFETY: this frame is live, and these are its registers.
        unsafe { compare_from(case, Start { pc, sp, fp }, OwnStack { low: 0, high: (1 << 47) - 4096 }) };
    }

    /// # Safety
    /// `start` is a live frame's state, or everything from its stack pointer to the end of `own` is readable.
    unsafe fn compare_from(case: &mut Case, start: Start, own: OwnStack) {
        let mut walked = Trace::new();
        // SAFETY: by this function's own contract; the memo is used here only.
        unsafe {
            UNWINDER.walk(start, own, case.depth, case.cache, &mut walked);
            let id = walked.hash as u32 | 1;
            if let Some(known) = UNWINDER.recall(case.memo, start, case.depth) {
                assert_eq!(known.get(), id & crate::record::live_map::MAX_STACKS);
                case.recalled += 1;
                return;
            }
            let mut trace = Trace::new();
            let pieced = UNWINDER.piece_together(case.memo, start, own, case.depth, case.cache, &mut trace);
            assert_eq!(pieced.hash, walked.hash);
            assert!(!pieced.traced || trace.frames() == walked.frames());
            case.memo.learn(&pieced, id & crate::record::live_map::MAX_STACKS);
            case.pieced += 1;
        }
    }

    /// Callers whose frames are of one size, so that the stack pointer says nothing of who called.
    #[inline(never)]
    fn left(case: &mut Case, turns: u32) {
        descend(case, black_box(turns));
        black_box(());
    }
    #[inline(never)]
    fn right(case: &mut Case, turns: u32) {
        black_box(());
        descend(case, black_box(turns));
    }
    fn descend(case: &mut Case, turns: u32) {
        match turns {
            0..2 => compare(case),
            _ if turns.is_multiple_of(2) => left(case, turns / 2),
            _ => right(case, turns / 2),
        }
    }

    /// A stack with nothing readable around it.
    const WORDS: usize = 512;
    fn guarded() -> AddrRange {
        let range = crate::arena::map(3 * 4096).unwrap();
        for guard in [range.start, range.start + 2 * 4096] {
            // SAFETY: pages of the new mapping.
            unsafe { sys::call(sys::nr::MPROTECT, [guard, 4096, sys::PROT_NONE, 0, 0, 0]) }.unwrap();
        }
        AddrRange::new(range.start + 4096, range.start + 2 * 4096)
    }

    /// Return addresses of real code, whose frames are of many shapes.
    fn addresses() -> &'static [usize] {
        static ADDRESSES: std::sync::OnceLock<Vec<usize>> = std::sync::OnceLock::new();
        ADDRESSES.get_or_init(|| {
            let mut addresses = Vec::new();
            backtrace::trace(|frame| {
                addresses.push(frame.ip() as usize);
                true
            });
            for function in [guarded as *const () as usize, left as *const () as usize, compare as *const () as usize] {
                addresses.extend((0..400).step_by(7).map(|inside| function + inside));
            }
            addresses.retain(|address| *address != 0);
            addresses
        })
    }

    #[derive(Clone, Copy, Debug)]
    enum Word {
        Address(prop::sample::Index),
        Stack(usize),
        Any(usize),
    }
    fn word() -> impl Strategy<Value = Word> {
        prop_oneof![
            4 => any::<prop::sample::Index>().prop_map(Word::Address),
            3 => (0..WORDS + 4).prop_map(Word::Stack),
            1 => any::<usize>().prop_map(Word::Any),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(300))]

        /// Whatever stands on the stack and in the frame pointer: no read outside of it, an end, and the memo finds what a walk does.
        #[test]
        fn damaged_stacks_are_walked_in_bounds(
            words in prop::collection::vec(word(), WORDS),
            turns in prop::collection::vec((prop::collection::vec((0..WORDS, word()), 0..6), 0..WORDS, word(), word()), 1..40),
        ) {
            let stack = guarded();
            let value = |word: Word| match word {
                Word::Address(pick) => *pick.get(addresses()),
                Word::Stack(at) => stack.start + at * 8,
                Word::Any(value) => value,
            };
            // SAFETY: the page between the guards, which is this test's alone.
            let slots = unsafe { core::slice::from_raw_parts_mut(stack.start as *mut usize, WORDS) };
            for (slot, word) in slots.iter_mut().zip(words) {
                *slot = value(word);
            }
            let mut case = case(64);
            for (changes, sp, pc, fp) in turns {
                for (at, word) in changes {
                    slots[at] = value(word);
                }
                let start = Start { pc: value(pc), sp: stack.start + sp * 8, fp: value(fp) };
                for _ in 0..2 {
                    // SAFETY: the stack is readable to its end.
                    unsafe { compare_from(&mut case, start, OwnStack { low: stack.start, high: stack.end }) };
                }
            }
            // SAFETY: nobody else knows it.
            unsafe { crate::arena::unmap(AddrRange::new(stack.start - 4096, stack.end + 4096)) };
        }
    }

    #[test]
    fn what_is_recalled_or_pieced_together_is_what_a_walk_finds() {
        for depth in [64, 5, 2, 1] {
            let mut case = case(depth);
            for _ in 0..50 {
                for turns in 32..64 {
                    descend(&mut case, turns);
                }
            }
            if depth > 1 {
                assert!(case.pieced > 0, "{} {}", case.recalled, case.pieced);
            }
        }
    }

    #[test]
    fn the_same_stack_is_recalled_and_forgotten_when_code_goes() {
        let mut case = case(64);
        let mut turns = || {
            (case.recalled, case.pieced) = (0, 0);
            for _ in 0..black_box(1000) {
                left(&mut case, 1);
            }
            // The compiler may call from more than one place; an entry that is wrong 64 times goes.
            assert!(case.recalled > 800 && case.recalled + case.pieced == 1000, "{} {}", case.recalled, case.pieced);
            case.pieced
        };
        assert!(turns() >= 2, "kept when missed for the second time");
        UNWINDER.frames.retire(crate::AddrRange::new(1, 2));
        assert!(turns() >= 1, "empty again");
    }
}
