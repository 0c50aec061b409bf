//! Stacks of contexts (makecontext): below the stack pointer of the thread that runs on one, and on one whose routine has returned,
//! nothing is meant any more.
//!
//! That a routine has returned is seen at the end of its stack: glibc's trampoline, to which it returns, calls setcontext from there and
//! leaves the address behind that call where its own had been.
#![allow(unsafe_code)] // calls makecontext on a context of our own

use crate::shims::context_ends_at;
use crate::state::TRACKER;
use crate::{real, snapshot::Job};
use core::ffi::c_int;
use core::sync::atomic::{AtomicU32, AtomicUsize, Ordering::Acquire, Ordering::Relaxed, Ordering::Release};
use leakscan_engine::{AddrRange, sys};

/// Stacks that are known; of more, the older ones are forgotten.
const ROOM: usize = 1024;
/// The trampoline is no longer than that.
const TRAMPOLINE: usize = 64;
/// Below the stack pointer, where leaf functions keep words.
const RED_ZONE: usize = 128;

struct Context {
    /// 0: free; 1: being written.
    low: AtomicUsize,
    high: AtomicUsize,
    /// Where the trampoline's address lies first; 0: not on the stack.
    end: AtomicUsize,
    /// The block that begins at `low`, as the live map had it; 0: none does.
    cell: AtomicU32,
}

static CONTEXTS: [Context; ROOM] = [const {
    Context { low: AtomicUsize::new(0), high: AtomicUsize::new(0), end: AtomicUsize::new(0), cell: AtomicU32::new(0) }
}; ROOM];
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
    find_trampoline();
    let stack = AddrRange::new(low, high);
    let is_free = |place: &&Context| {
        let low = place.low.load(Acquire);
        // What was there before is over.
        if low > 1 && stack.overlaps(AddrRange::new(low, place.high.load(Relaxed))) {
            let _ = place.low.compare_exchange(low, 0, Relaxed, Relaxed);
        }
        place.low.load(Relaxed) == 0
    };
    let claim = |place: &&Context| place.low.compare_exchange(0, 1, Acquire, Relaxed).is_ok();
    let free = used().iter().filter(is_free).fold(None, |first, place| first.or(Some(place)));
    let place = free.filter(claim).or_else(|| CONTEXTS.get(USED.fetch_add(1, Relaxed)).filter(claim)).or_else(|| {
        let place = &CONTEXTS[TURN.fetch_add(1, Relaxed) % ROOM];
        place.low.store(0, Relaxed);
        Some(place).filter(claim)
    });
    let Some(place) = place else { return };
    place.high.store(high, Relaxed);
    place.end.store(context_ends_at(high, usize::try_from(arguments).unwrap_or(0)), Relaxed);
    place.cell.store(TRACKER.live.get(low).map_or(0, |cell| cell.0), Relaxed);
    place.low.store(low, Release);
}

/// Makes a context to see what glibc writes to the end of its stack.
fn find_trampoline() {
    if START.load(Relaxed) != 0 {
        return;
    }
    const WORDS: usize = 64;
    let mut stack = [0usize; WORDS];
    // More than a `ucontext_t` takes.
    let mut context = [0usize; 256];
    let high = stack.as_ptr() as usize + size_of_val(&stack);
    let end = context_ends_at(high, 0);
    (context[2], context[4]) = (stack.as_mut_ptr() as usize, size_of_val(&stack));
    // SAFETY: the context and its stack are ours; the routine is never entered.
    unsafe { real::makecontext(context.as_mut_ptr() as usize, find_trampoline as *const () as usize, 0) };
    if let Some([start]) = (end != 0).then(|| sys::peek(end)).flatten() {
        START.store(start, Relaxed);
    }
}

/// What nothing is meant by any more, for a thread with each of these stack pointers and others that stand elsewhere.
pub fn over(job: &Job) -> impl Iterator<Item = AddrRange> {
    let start = START.load(Relaxed);
    used().iter().filter_map(move |context| {
        let (low, high) = (context.low.load(Acquire), context.high.load(Relaxed));
        // The block may be another one by now.
        let cell = context.cell.load(Relaxed);
        if low <= 1 || cell != 0 && TRACKER.live.get(low).is_none_or(|now| now.0 != cell) {
            return None;
        }
        let stack = AddrRange::new(low, high);
        let others = job.crew.found().iter().map(|thread| thread.sp.saturating_sub(RED_ZONE));
        let mut standing = others.chain([job.caller.sp]).filter(|sp| stack.contains(*sp));
        if let Some(sp) = standing.next() {
            return Some(AddrRange::new(low, sp));
        }
        let [word] = sys::peek(context.end.load(Relaxed))?;
        (start != 0 && word > start && word - start < TRAMPOLINE).then_some(stack)
    })
}
