//! The process's one tracker, and the settings that the hot path reads.

use core::sync::atomic::{
    AtomicBool, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering::Acquire, Ordering::Relaxed, Ordering::Release,
};
use leakscan_engine::record::wanted::Wanted;
use leakscan_engine::record::{Clear, Tracker};
use leakscan_engine::unwind::Unwinder;

pub static TRACKER: Tracker = Tracker::new();
pub static UNWINDER: Unwinder = Unwinder::new();

/// Mean bytes between samples; 0: the stack of every block.
pub static SAMPLE: AtomicU64 = AtomicU64::new(0);
/// Under sampling: sizes of which every block gets its stack.
pub static WANTED: Wanted = Wanted::new();
pub static DEPTH: AtomicU32 = AtomicU32::new(64);
pub static UNWIND_CHECK: AtomicU64 = AtomicU64::new(0);
/// Clear all new blocks (`zero=1`).
pub static ZERO: AtomicBool = AtomicBool::new(false);
/// Otherwise, clear new blocks of so many bytes at most where there were blocks before (`zero=used`); 0: none.
pub static CLEAR: AtomicUsize = AtomicUsize::new(0);
/// Leave every Nth free out (`forget=N`); 0: none.
pub static FORGET: AtomicU64 = AtomicU64::new(0);
/// The blocks are not glibc's: chunk headers are not ours to read.
pub static FOREIGN_ALLOCATOR: AtomicBool = AtomicBool::new(false);

/// The program asks how large blocks are beyond what it asked for: their tails may hold pointers.
pub static USES_SLACK: AtomicBool = AtomicBool::new(false);
/// The program calls a malloc of its own instead of ours.
pub static BYPASSED: AtomicBool = AtomicBool::new(false);
/// And that is a library's which was loaded before us.
pub static PRELOADED_BEFORE: AtomicBool = AtomicBool::new(false);
/// A Python that has not been told to use malloc (PYTHONMALLOC).
pub static PYMALLOC: AtomicBool = AtomicBool::new(false);

const OFF: u8 = 0;
const STARTING: u8 = 1;
const ON: u8 = 2;
const FAILED: u8 = 3;
static STATE: AtomicU8 = AtomicU8::new(OFF);

/// Which new blocks are cleared.
#[inline(always)]
pub fn clear() -> Clear {
    Clear { up_to: CLEAR.load(Relaxed) }
}

/// Whether blocks are tracked; the first call starts the tracker.
#[inline(always)]
pub fn on() -> bool {
    STATE.load(Acquire) == ON || start()
}

/// No block is tracked any more. For good: what was born and freed from now on is not known.
pub fn close() {
    STATE.store(FAILED, Release);
    crate::fast::close_malloc();
    crate::fast::close_free();
}

#[cold]
#[inline(never)]
fn start() -> bool {
    crate::real::ready();
    if !crate::real::resolved() {
        return false;
    }
    if STATE.compare_exchange(OFF, STARTING, Acquire, Relaxed).is_err() {
        // Another thread, or this one further up, is at it, or there was no memory for it.
        return false;
    }
    crate::real::ready();
    let foreign = !crate::real::is_glibc();
    FOREIGN_ALLOCATOR.store(foreign, Relaxed);
    crate::regions::set_allocator(foreign.then(|| crate::real::MALLOC.load(Relaxed)));
    if foreign {
        // What its functions set up at their first call may allocate (tcmalloc's malloc_usable_size does): now, while nothing is
        // tracked, rather than inside of our malloc, which would come back here without an end.
        let block = crate::real::malloc(64);
        crate::real::usable_size(block);
        crate::real::free(block);
    }
    UNWINDER.set_find(crate::real::find_object);
    let started = TRACKER.live.init();
    // The heap lies behind the program, and what is mapped near what we have mapped.
    TRACKER.live.expect(crate::symbols::program());
    TRACKER.live.expect(core::ptr::from_ref(&TRACKER).addr());
    STATE.store(if started { ON } else { FAILED }, Release);
    started
}
