//! `allocator=bundled`: small blocks come from a heap of ours ([`leakscan_engine::heap`]), all others from the program's own allocator,
//! glibc's, as before.
//!
//! Called by the constructor, which puts it in place: the slots of [`crate::real`] lead here from then on. Whose a block is, its
//! address says; blocks that are there already stay where they are.
#![allow(unsafe_code)] // calls functions by address, copies blocks

use crate::interpose::chunk_size;
use crate::state::{FOREIGN_ALLOCATOR, TRACKER};
use crate::tls::{self, Thread};
use crate::{real, stop};
use core::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering::Relaxed};
use leakscan_engine::heap::{Heap, SMALLEST};
use leakscan_engine::sys;

static HEAP: Heap = Heap::new();
static IN_PLACE: AtomicBool = AtomicBool::new(false);
static REFUSED: AtomicU8 = AtomicU8::new(Refused::No as u8);

/// Addresses that it takes at most; none of them is memory before it is used. Of a limit that the program has, an eighth.
const SPAN: usize = 64 << 30;

/// Why it is not in place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Refused {
    No = 0,
    OtherAllocator,
    Threads,
    Memory,
}

impl Refused {
    /// For the report.
    pub const fn why(self) -> &'static [u8] {
        match self {
            Refused::No => b"",
            Refused::OtherAllocator => b"allocator=bundled: another allocator than glibc's is there already; it stays",
            Refused::Threads => {
                b"allocator=bundled: there were other threads already when we started; glibc's malloc stays"
            }
            Refused::Memory => b"allocator=bundled: there are no addresses for its blocks; glibc's malloc stays",
        }
    }
}

/// Why it is not in place, where it was asked for.
pub fn refused() -> &'static [u8] {
    const ALL: [Refused; 4] = [Refused::No, Refused::OtherAllocator, Refused::Threads, Refused::Memory];
    ALL.get(usize::from(REFUSED.load(Relaxed))).map_or(b"", |refused| refused.why())
}

/// Whether it is.
pub fn in_place() -> bool {
    IN_PLACE.load(Relaxed)
}

/// What it has: nothing, if it is not in place.
pub fn heap() -> &'static Heap {
    &HEAP
}

/// glibc's functions.
static MALLOC: AtomicUsize = AtomicUsize::new(0);
static CALLOC: AtomicUsize = AtomicUsize::new(0);
static REALLOC: AtomicUsize = AtomicUsize::new(0);
static FREE: AtomicUsize = AtomicUsize::new(0);
static USABLE_SIZE: AtomicUsize = AtomicUsize::new(0);

/// Puts it in place. For the constructor, after tracking has begun.
pub fn load() {
    let refused = if FOREIGN_ALLOCATOR.load(Relaxed) || !real::is_interposed() {
        Refused::OtherAllocator
    } else if stop::count() > 1 {
        Refused::Threads
    } else if !HEAP.init(SPAN.min(sys::memory_limit() / 8)) {
        Refused::Memory
    } else {
        Refused::No
    };
    REFUSED.store(refused as u8, Relaxed);
    if refused != Refused::No {
        return;
    }
    for (slot, theirs, ours) in [
        (&real::MALLOC, &MALLOC, heaps_malloc as *const () as usize),
        (&real::CALLOC, &CALLOC, heaps_calloc as *const () as usize),
        (&real::REALLOC, &REALLOC, heaps_realloc as *const () as usize),
        (&real::FREE, &FREE, heaps_free as *const () as usize),
        (&real::MALLOC_USABLE_SIZE, &USABLE_SIZE, usable_size as *const () as usize),
    ] {
        theirs.store(slot.load(Relaxed), Relaxed);
        slot.store(ours, Relaxed);
    }
    real::FREE_SIZED.store(0, Relaxed);
    real::FREE_ALIGNED_SIZED.store(0, Relaxed);
    TRACKER.spare_is_ours.store(true, Relaxed);
    IN_PLACE.store(true, Relaxed);
}

macro_rules! call {
    ($slot:ident, fn($($arg:ident: $ty:ty),*) -> $out:ty) => {
        // SAFETY: the slot holds the address of glibc's function of this C prototype, which is given a block of glibc's, or none.
        unsafe {
            core::mem::transmute::<usize, unsafe extern "C" fn($($ty),*) -> $out>($slot.load(Relaxed))($($arg),*)
        }
    };
}

/// A block of `size` bytes or more for the thread, and its usable size. Its address is 0 if there is no memory.
#[inline(always)]
pub fn malloc_in(thread: &Thread, size: usize) -> (usize, usize) {
    HEAP.take(&thread.cache, size).unwrap_or_else(|| malloc_below(size))
}

#[inline(never)]
fn malloc_below(size: usize) -> (usize, usize) {
    match call!(MALLOC, fn(size: usize) -> usize) {
        0 => (0, 0),
        addr => (addr, chunk_size(addr)),
    }
}

/// glibc's malloc begins, if it has not yet: it asks the kernel for more than memory then.
pub fn begin_below() {
    if in_place() {
        let (addr, _) = malloc_below(1);
        call!(FREE, fn(addr: usize) -> ());
    }
}

/// The same, all zeros.
#[inline(always)]
pub fn calloc_in(thread: &Thread, size: usize) -> (usize, usize) {
    match HEAP.take(&thread.cache, size) {
        Some((addr, usable)) => {
            // SAFETY: the block is new, and has so many bytes.
            unsafe { (addr as *mut u8).write_bytes(0, size) };
            (addr, usable)
        }
        None => calloc_below(1, size),
    }
}

#[inline(never)]
fn calloc_below(count: usize, size: usize) -> (usize, usize) {
    match call!(CALLOC, fn(count: usize, size: usize) -> usize) {
        0 => (0, 0),
        addr => (addr, chunk_size(addr)),
    }
}

/// For a thread that may keep the block for itself.
#[inline(always)]
pub fn free_in(thread: &Thread, addr: usize) {
    if !HEAP.give(&thread.cache, addr) {
        call!(FREE, fn(addr: usize) -> ())
    }
}

extern "C" fn heaps_malloc(size: usize) -> usize {
    tls::current().map_or_else(|| malloc_below(size), |thread| malloc_in(thread, size)).0
}

extern "C" fn heaps_calloc(count: usize, size: usize) -> usize {
    match (tls::current(), count.checked_mul(size)) {
        (Some(thread), Some(total)) => calloc_in(thread, total),
        _ => calloc_below(count, size),
    }
    .0
}

extern "C" fn heaps_free(addr: usize) {
    match tls::current() {
        Some(thread) => free_in(thread, addr),
        None if HEAP.give_at_once(addr) => {}
        None => call!(FREE, fn(addr: usize) -> ()),
    }
}

extern "C" fn usable_size(addr: usize) -> usize {
    HEAP.usable(addr).unwrap_or_else(|| call!(USABLE_SIZE, fn(addr: usize) -> usize))
}

/// As glibc's, which frees what is to have no bytes. A block that is to be less than half of what it is, moves, too, if there are smaller ones.
extern "C" fn heaps_realloc(old: usize, size: usize) -> usize {
    let Some(usable) = HEAP.usable(old) else {
        return if old == 0 { heaps_malloc(size) } else { call!(REALLOC, fn(old: usize, size: usize) -> usize) };
    };
    if size == 0 {
        heaps_free(old);
        return 0;
    }
    if size <= usable && (size > usable / 2 || usable == SMALLEST) {
        return old;
    }
    let new = heaps_malloc(size);
    if new != 0 {
        // SAFETY: both blocks are as long, and the new one is nobody else's yet.
        unsafe { core::ptr::copy_nonoverlapping(old as *const u8, new as *mut u8, size.min(usable)) };
        heaps_free(old);
    }
    new
}
