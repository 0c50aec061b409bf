//! What the program's own calls tell about its address space: memory from sbrk and brk, memory that it keeps from its forks, and memory
//! that another allocator than glibc's has taken for its blocks and its books.
//!
//! An allocator is known by the file that its malloc lies in: what that file maps is its own. Its books hold stale pointers
//! to blocks (caches of freed ones, first blocks of slabs), so none of it is a root.
#![allow(unsafe_code)] // exported functions

use crate::{contexts, real};
use core::ffi::c_int;
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering::Acquire, Ordering::Relaxed, Ordering::Release};
use leakscan_engine::AddrRange;

/// A list of ranges. Added to by any thread without a lock, read by the snapshot child.
#[repr(C)]
pub struct Ranges<const ROOM: usize> {
    used: AtomicU32,
    places: [(AtomicUsize, AtomicUsize); ROOM],
}

impl<const ROOM: usize> Ranges<ROOM> {
    const fn new() -> Self {
        Self { used: AtomicU32::new(0), places: [const { (AtomicUsize::new(0), AtomicUsize::new(0)) }; ROOM] }
    }

    fn used(&self) -> &[(AtomicUsize, AtomicUsize)] {
        &self.places[..(self.used.load(Acquire) as usize).min(ROOM)]
    }

    /// To the end of a known one, in an empty place, or in a new one. (What another thread removes meanwhile may go with it.)
    fn add(&self, range: AddrRange) {
        // (What begins nowhere is empty, or another thread is about to fill it.)
        let follows = |(start, end): &(AtomicUsize, AtomicUsize)| {
            !matches!(start.load(Acquire), 0 | usize::MAX)
                && end.compare_exchange(range.start, range.end, Relaxed, Relaxed).is_ok()
        };
        if self.iter().any(|known| known.start <= range.start && range.end <= known.end)
            || self.used().iter().any(follows)
        {
            return;
        }
        let take =
            |(start, _): &&(AtomicUsize, AtomicUsize)| start.compare_exchange(0, usize::MAX, Relaxed, Relaxed).is_ok();
        let empty = self.used().iter().find(take);
        if let Some(place) = empty.or_else(|| self.places.get(self.used.fetch_add(1, Relaxed) as usize)) {
            place.1.store(range.end, Relaxed);
            place.0.store(range.start, Release);
        }
    }

    /// Ranges that found no place.
    pub fn lost(&self) -> usize {
        (self.used.load(Relaxed) as usize).saturating_sub(ROOM)
    }

    /// Takes a range out. One that it would leave in two parts keeps the lower one only.
    fn remove(&self, gone: AddrRange) {
        for (start, end) in self.used() {
            let range = AddrRange::new(start.load(Acquire), end.load(Relaxed));
            if !range.overlaps(gone) {
            } else if gone.start <= range.start {
                start.store(if gone.end < range.end { gone.end } else { 0 }, Release);
            } else {
                end.store(gone.start, Relaxed);
            }
        }
    }

    pub fn iter(&self) -> impl Iterator<Item = AddrRange> + '_ {
        let ranges = self.used().iter().map(|place| AddrRange::new(place.0.load(Acquire), place.1.load(Relaxed)));
        ranges.filter(|range| range.start != 0 && !range.is_empty())
    }
}

/// Memory that the program got by sbrk or brk itself.
pub static SBRK: Ranges<256> = Ranges::new();
/// The program keeps memory from its forks (MADV_DONTFORK, MADV_WIPEONFORK).
pub static KEPT_FROM_FORKS: AtomicBool = AtomicBool::new(false);
/// The program gives pages back (MADV_FREE).
pub static GIVEN_BACK: AtomicBool = AtomicBool::new(false);
/// Another allocator's memory.
pub static ALLOCATORS: Ranges<4096> = Ranges::new();

static KNOWN: AtomicBool = AtomicBool::new(false);
/// The file of the allocator, if it is not glibc's. Empty: none, or not known yet.
static ALLOCATOR: (AtomicUsize, AtomicUsize) = (AtomicUsize::new(0), AtomicUsize::new(0));
/// What was mapped, or got by sbrk, before the allocator was known.
struct Early {
    start: AtomicUsize,
    end: AtomicUsize,
    by_sbrk: AtomicBool,
    caller: AtomicUsize,
}
static EARLY: [Early; 32] = [const {
    Early {
        start: AtomicUsize::new(0),
        end: AtomicUsize::new(0),
        by_sbrk: AtomicBool::new(false),
        caller: AtomicUsize::new(0),
    }
}; 32];
static EARLY_USED: AtomicU32 = AtomicU32::new(0);

/// The allocator is known: glibc's (`None`), or another one, whose malloc is at this address.
pub fn set_allocator(malloc: Option<usize>) {
    KNOWN.store(true, Release);
    let file = malloc.and_then(real::mapped_file).unwrap_or_default();
    if !file.is_empty() {
        real::forget_makers_in(file);
        ALLOCATOR.1.store(file.end, Relaxed);
        ALLOCATOR.0.store(file.start, Release);
    }
    for early in &EARLY {
        let caller = early.caller.load(Acquire);
        let range = AddrRange::new(early.start.load(Relaxed), early.end.load(Relaxed));
        if file.contains(caller) {
            ALLOCATORS.add(range);
        } else if caller != 0 && early.by_sbrk.load(Relaxed) {
            SBRK.add(range);
        }
    }
}

fn note_early(range: AddrRange, by_sbrk: bool, caller: usize) {
    if let Some(place) = EARLY.get(EARLY_USED.fetch_add(1, Relaxed) as usize) {
        place.start.store(range.start, Relaxed);
        place.end.store(range.end, Relaxed);
        place.by_sbrk.store(by_sbrk, Relaxed);
        place.caller.store(caller, Release);
    }
}

/// The file of an allocator that is not glibc's.
pub fn allocator() -> AddrRange {
    AddrRange::new(ALLOCATOR.0.load(Acquire), ALLOCATOR.1.load(Relaxed))
}

fn is_allocators(caller: usize) -> bool {
    allocator().contains(caller)
}

/// mmap without its note: the real one, or the kernel while that is not known.
pub extern "C" fn mmap(addr: usize, len: usize, protection: c_int, flags: c_int, file: c_int, offset: usize) -> usize {
    real::mmap(addr, len, protection, flags, file, offset)
}

/// Notes what `caller` has mapped; gives `addr`.
pub extern "C" fn mapped(addr: usize, len: usize, caller: usize) -> usize {
    if addr == usize::MAX {
        return addr;
    }
    let range = AddrRange::new(addr, (addr + len).next_multiple_of(4096));
    contexts::forget(range);
    if is_allocators(caller) {
        ALLOCATORS.add(range);
    } else if !KNOWN.load(Acquire) {
        note_early(range, false, caller);
    } else if ALLOCATORS.used.load(Relaxed) != 0 {
        // At a fixed address it may have taken the allocator's place.
        ALLOCATORS.remove(range);
    }
    addr
}

/// munmap: the program's.
#[unsafe(no_mangle)]
pub extern "C" fn munmap(addr: usize, len: usize) -> c_int {
    let gone = AddrRange::new(addr, (addr + len).next_multiple_of(4096));
    ALLOCATORS.remove(gone);
    contexts::forget(gone);
    real::munmap(addr, len)
}

/// sbrk without its note.
pub extern "C" fn sbrk(increment: isize) -> usize {
    real::sbrk(increment)
}

/// brk without its note. Gives where the memory ended before; -1: it is refused.
pub extern "C" fn brk(end: usize) -> usize {
    let before = real::sbrk(0);
    if real::brk(end) == 0 { before } else { usize::MAX }
}

/// Notes that `caller` has moved the end of the memory: as [`grown`]. Gives brk's result.
pub extern "C" fn moved(before: usize, _: usize, caller: usize) -> c_int {
    if before == usize::MAX {
        return -1;
    }
    // (One that is too low is asked for in vain, without an error.)
    grown(before, real::sbrk(0).wrapping_sub(before).cast_signed(), caller);
    0
}

/// Notes what `caller` has got by sbrk (glibc's malloc does not come here): its blocks if it is an allocator, else memory that
/// the program uses as it likes. Gives `start`.
pub extern "C" fn grown(start: usize, increment: isize, caller: usize) -> usize {
    if increment > 0 && start != usize::MAX {
        let range = AddrRange::new(start, start + increment as usize);
        if is_allocators(caller) {
            ALLOCATORS.add(range);
        } else if KNOWN.load(Acquire) {
            SBRK.add(range);
        } else {
            note_early(range, true, caller);
        }
    } else if increment < 0 && start != usize::MAX {
        // What malloc gets there next is malloc's.
        SBRK.remove(AddrRange::new(start.wrapping_add_signed(increment), start));
    }
    start
}

/// madvise: the program's.
#[unsafe(no_mangle)]
pub extern "C" fn madvise(start: usize, len: usize, advice: c_int) -> c_int {
    let result = real::madvise(start, len, advice);
    if result == 0 {
        advised(advice);
    }
    result
}

/// The kernel has taken the program's advice: notes whether a fork leaves anything out, and whether the kernel may take anything.
pub fn advised(advice: c_int) {
    const MADV_FREE: c_int = 8;
    const MADV_DONTFORK: c_int = 10;
    const MADV_WIPEONFORK: c_int = 18;
    match advice {
        MADV_FREE => GIVEN_BACK.store(true, Relaxed),
        MADV_DONTFORK | MADV_WIPEONFORK => KEPT_FROM_FORKS.store(true, Relaxed),
        _ => {}
    }
}
