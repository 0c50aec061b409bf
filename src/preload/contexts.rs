//! Stacks of contexts (makecontext): below the stack pointer of the thread that runs on one, and on one whose routine has returned,
//! nothing is meant any more.
//!
//! That a routine has returned is seen at the end of its stack: glibc's trampoline, to which it returns, calls setcontext from there and
//! leaves the address behind that call where its own had been.
//!
//! A stack is forgotten when its memory is freed, unmapped or mapped over, and left alone where anything else is found in it.
#![allow(unsafe_code)] // calls makecontext on a context of our own

use crate::shims::context_ends_at;
use crate::{fast, own, real, snapshot::Job, threads};
use core::ffi::c_int;
use core::sync::atomic::{AtomicUsize, Ordering::Acquire, Ordering::Relaxed, Ordering::Release};
use leakscan_engine::scan::blocks::{Blocks, SizeOf};
use leakscan_engine::{AddrRange, arena, sys};

/// Stacks that are known; of more, the older ones are forgotten.
const ROOM: usize = 1024;
/// The trampoline is no longer than that.
const TRAMPOLINE: usize = 64;
/// Of a stack one part in so many, the lowest, is taken for what it says.
const HEADROOM: usize = 8;
/// Below the stack pointer, where leaf functions keep words.
const RED_ZONE: usize = 128;

struct Context {
    /// 0: free; 1: being written.
    low: AtomicUsize,
    high: AtomicUsize,
    /// Where the trampoline's address lies first; 0: not on the stack.
    end: AtomicUsize,
}

static CONTEXTS: [Context; ROOM] =
    [const { Context { low: AtomicUsize::new(0), high: AtomicUsize::new(0), end: AtomicUsize::new(0) } }; ROOM];
/// No stack is smaller.
static SMALLEST: AtomicUsize = AtomicUsize::new(usize::MAX);
static USED: AtomicUsize = AtomicUsize::new(0);
static TURN: AtomicUsize = AtomicUsize::new(0);
/// glibc's trampoline; 0: not known.
static START: AtomicUsize = AtomicUsize::new(0);

fn used() -> &'static [Context] {
    &CONTEXTS[..USED.load(Acquire).min(ROOM)]
}

/// Whether there was ever one.
pub fn exist() -> bool {
    !used().is_empty()
}

/// `ucontext_t` as far as it is ABI.
#[repr(C)]
pub struct Ucontext {
    flags: usize,
    link: usize,
    stack: usize,
    stack_flags: c_int,
    stack_size: usize,
}

/// makecontext is about to be called.
///
/// # Safety
/// `context` is what the program gives to it.
pub unsafe extern "C" fn making(context: *const Ucontext, _: usize, arguments: c_int) {
    real::ready();
    // SAFETY: by this function's own contract.
    let (low, size) = unsafe { ((*context).stack, (*context).stack_size) };
    let Some(high) = low.checked_add(size).filter(|_| low > 1 && size != 0) else { return };
    if !exist() {
        // From now on each free has to look here.
        fast::close_free();
        find_trampoline();
    }
    SMALLEST.fetch_min(size, Relaxed);
    forget(AddrRange::new(low, high));
    let claim = |place: &&Context| place.low.compare_exchange(0, 1, Acquire, Relaxed).is_ok();
    let unused = || CONTEXTS.get(USED.fetch_add(1, Relaxed)).filter(claim);
    let oldest = || {
        let place = &CONTEXTS[TURN.fetch_add(1, Relaxed) % ROOM];
        let there = place.low.load(Relaxed);
        (there > 1 && place.low.compare_exchange(there, 1, Acquire, Relaxed).is_ok()).then_some(place)
    };
    let Some(place) = used().iter().find(claim).or_else(unused).or_else(oldest) else { return };
    place.high.store(high, Relaxed);
    place.end.store(context_ends_at(high, usize::try_from(arguments).unwrap_or(0)), Relaxed);
    place.low.store(low, Release);
    // (The constructor may have opened the short ways meanwhile.)
    fast::close_free();
}

/// Whether a block of so many usable bytes may hold a stack.
pub fn may_lie_in(usable: usize) -> bool {
    usable >= SMALLEST.load(Relaxed)
}

/// The memory is something else from now on.
pub fn forget(range: AddrRange) {
    for context in used() {
        let low = context.low.load(Acquire);
        if low > 1 && range.overlaps(AddrRange::new(low, context.high.load(Relaxed))) {
            let _ = context.low.compare_exchange(low, 0, Relaxed, Relaxed);
        }
    }
}

/// Makes a context to see what glibc writes to the end of its stack.
fn find_trampoline() {
    if START.load(Relaxed) != 0 {
        return;
    }
    // The caller's own stack may be small. More than a `ucontext_t` takes, and as much for the stack.
    let Some((context, stack)) = arena::zeroed::<usize>(2 * 512).map(|words| words.split_at_mut(512)) else { return };
    let high = stack.as_ptr() as usize + size_of_val(stack);
    let end = context_ends_at(high, 0);
    (context[2], context[4]) = (stack.as_mut_ptr() as usize, size_of_val(stack));
    // SAFETY: the context and its stack are ours; the routine is never entered.
    unsafe { real::makecontext(context.as_mut_ptr() as usize, find_trampoline as *const () as usize, 0) };
    if let Some([start]) = (end != 0).then(|| sys::peek(end)).flatten() {
        START.store(start, Relaxed);
    }
}

/// What nothing is meant by any more.
pub fn over<S: SizeOf>(job: &Job, blocks: &Blocks<'_, S>) -> impl Iterator<Item = AddrRange> {
    let start = START.load(Relaxed);
    used().iter().filter_map(move |context| {
        let (low, high) = (context.low.load(Acquire), context.high.load(Relaxed));
        let stack = AddrRange::new(low, high);
        let others = arena::own_ranges().chain(threads::stacks().map(|stack| stack.range)).chain([own::data()]);
        if low <= 1
            || blocks.start_in(AddrRange::new(low + 1, high))
            || others.into_iter().any(|other| other.overlaps(stack))
        {
            return None;
        }
        // A program may keep something of its own at the far end of what it declares to be a stack.
        let headroom = low + (high - low) / HEADROOM;
        let others = job.crew.found().iter().map(|thread| thread.sp.saturating_sub(RED_ZONE));
        let mut standing = others.chain([job.caller.sp]).filter(|sp| stack.contains(*sp));
        match (standing.next(), standing.next()) {
            (Some(sp), None) => (headroom < sp).then(|| AddrRange::new(headroom, sp)),
            (Some(_), Some(_)) => None,
            // A stack that is a block: no other memory is told when the program uses it for something else.
            (None, _) if is_block(stack, blocks) => {
                let [word] = sys::peek(context.end.load(Relaxed))?;
                (start != 0 && word > start && word - start < TRAMPOLINE).then(|| AddrRange::new(headroom, high))
            }
            (None, _) => None,
        }
    })
}

/// Whether a stack is all of a block, but for what an alignment takes.
fn is_block<S: SizeOf>(stack: AddrRange, blocks: &Blocks<'_, S>) -> bool {
    const MORE: usize = 256;
    let Some((start, _)) = blocks.find(stack.start) else { return false };
    let end = start + blocks.requested(start);
    stack.start - start <= MORE && stack.end <= end && end - stack.end <= MORE
}
