use super::*;
use crate::record::live_map::MAX_STACKS;
use crate::unwind::walk::tests::{UNWINDER, find};
use crate::{AddrRange, sys};
use proptest::prelude::*;
use std::collections::HashSet;
use std::hint::black_box;

struct Case {
    memo: &'static mut Memo,
    cache: &'static NodeCache,
    recalled: usize,
    pieced: usize,
    depth: usize,
    /// How often each stack comes at once.
    batch: usize,
    /// The hashes of all stacks so far.
    seen: HashSet<u64>,
}

fn case(depth: usize) -> Case {
    UNWINDER.set_find(find);
    let memo = Memo::new().unwrap();
    let [cache] = crate::arena::zeroed::<NodeCache>(1).unwrap() else { unreachable!() };
    Case { memo, cache, recalled: 0, pieced: 0, depth, batch: 1, seen: HashSet::new() }
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
        if let Some(known) = UNWINDER.recall(case.memo, case.cache, start, case.depth) {
            assert_eq!(known.get(), id & MAX_STACKS);
            case.recalled += 1;
            return;
        }
        let mut trace = Trace::new();
        let pieced = UNWINDER.piece_together(case.memo, start, own, case.depth, case.cache, &mut trace);
        assert_eq!(pieced.hash, walked.hash);
        case.memo.complete(&mut trace);
        assert_eq!(trace.frames(), walked.frames());
        let again = !case.seen.insert(pieced.hash);
        let id = StackId::new(id & MAX_STACKS).unwrap();
        UNWINDER.learn(case.memo, case.depth, case.cache, &pieced, id, again);
        if case.memo.wants_more() {
            case.memo.grow();
        }
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
        0..2 => (0..black_box(case.batch)).for_each(|_| compare(case)),
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
            for _ in 0..3 {
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
fn stacks_that_come_again_at_once_are_kept_meanwhile() {
    let mut case = case(64);
    case.batch = 8;
    for turns in 1024..2048 {
        descend(&mut case, turns);
    }
    assert!(case.pieced < 1050 && case.recalled + case.pieced == 8 * 1024, "{} {}", case.recalled, case.pieced);
    // Where they do not, none is kept any more.
    case.batch = 1;
    for turns in 1024..2048 {
        descend(&mut case, turns);
    }
    assert!(!case.memo.keeps_recent());
}

#[test]
fn a_memo_that_is_full_of_known_stacks_again_and_again_gets_more_room() {
    let mut case = case(64);
    let small = case.memo.tables.most;
    let mut pieced = vec![];
    for _ in 0..40 {
        let before = case.pieced;
        for turns in 2048..4096 {
            descend(&mut case, turns);
        }
        pieced.push(case.pieced - before);
    }
    assert!(case.memo.tables.most > small, "{pieced:?}");
    // Stacks that are all new do not ask for more.
    let mut case = self::case(64);
    for turns in 1 << 16..(1 << 16) + 40_000 {
        descend(&mut case, turns);
    }
    assert_eq!(case.memo.tables.most, small);
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
