//! The short ways through malloc, calloc and free, operator new and delete, for what nearly every call of theirs is: a block that gets its
//! stack, or under sampling one that gets none, and the end of a block by the family that made it. Whatever is out of the ordinary
//! goes on in [`crate::interpose`].
//!
//! (Nothing here has a C function's own name: a debugger would call it for that.)
//!
//! Measured by `scripts/check-hot-path`, which also holds the bounds.
#![allow(unsafe_code)] // takes the thread's word for its block, and the map's root for made

use crate::interpose::{self, Caller};
use crate::shims::thread_word;
use crate::stack;
use crate::state::{self, TRACKER};
use crate::tls::Thread;
use crate::{bundled, contexts, operators, real, shims, trigger};
use core::ffi::c_int;
use core::sync::atomic::{AtomicBool, AtomicPtr, Ordering::Relaxed};
use leakscan_engine::StackId;
use leakscan_engine::record::live_map::Family;
use leakscan_engine::record::{Chosen, Clear, New};

/// Over another allocator than glibc's.
const FOREIGN: u8 = 1;
const SAMPLED: u8 = 2;
const EVERY: u8 = 4;
/// Over the bundled one.
const BUNDLED: u8 = 8;
const EVERY_FOREIGN: u8 = EVERY | FOREIGN;
const EVERY_BUNDLED: u8 = EVERY | BUNDLED;
const SAMPLED_FOREIGN: u8 = SAMPLED | FOREIGN;
const SAMPLED_BUNDLED: u8 = SAMPLED | BUNDLED;

/// Where the entries go (src/preload/shims): functions of the types [`Malloc`], [`Calloc`], [`Free`] and [`Delete`].
pub static MALLOC: AtomicPtr<()> = AtomicPtr::new(interpose::on_malloc as Malloc as *mut ());
pub static CALLOC: AtomicPtr<()> = AtomicPtr::new(interpose::on_calloc as Calloc as *mut ());
pub static FREE: AtomicPtr<()> = AtomicPtr::new(interpose::on_free as Free as *mut ());
pub static DELETE: AtomicPtr<()> = AtomicPtr::new(interpose::delete as Delete as *mut ());
/// Operator new and delete go to [`MALLOC`] and [`DELETE`], past the C++ runtime.
pub static DIRECT: AtomicBool = AtomicBool::new(false);

/// `(size, the caller's stack pointer, its rbp, the number of the block's family)`
pub type Malloc = extern "C" fn(usize, usize, usize, u32) -> usize;
/// `(how many, the size of each, the caller's stack pointer, its rbp)`
pub type Calloc = extern "C" fn(usize, usize, usize, usize) -> usize;
/// `(address, the caller's stack pointer, its rbp)`
pub type Free = extern "C" fn(usize, usize, usize);
/// The same, and the family's number.
pub type Delete = extern "C" fn(usize, usize, usize, u32);

/// Opens the ways that the options leave open. For the constructor, when all else is done.
pub fn open() {
    let direct = shims::CAN_BE_DIRECT && operators::are_plain();
    let bundled = bundled::in_place();
    if state::FORGET.load(Relaxed) == 0 && !contexts::exist() {
        let free: Free = match (direct, bundled) {
            (true, false) => short_free::<false, false>,
            (true, true) => short_free::<false, true>,
            (false, false) => short_free::<true, false>,
            (false, true) => short_free::<true, true>,
        };
        let delete: Delete = if bundled { delete::<true> } else { delete::<false> };
        FREE.store(free as *mut (), Relaxed);
        DELETE.store(delete as *mut (), Relaxed);
    }
    DIRECT.store(direct, Relaxed);
    let foreign = state::FOREIGN_ALLOCATOR.load(Relaxed);
    let cannot_tell_sizes = foreign && real::MALLOC_USABLE_SIZE.load(Relaxed) == 0;
    if !state::ZERO.load(Relaxed) && !cannot_tell_sizes {
        let (malloc, calloc): (Malloc, Calloc) = match (state::SAMPLE.load(Relaxed) == 0, foreign, bundled) {
            (true, false, false) => (short_malloc::<EVERY>, short_calloc::<EVERY>),
            (true, false, true) => (short_malloc::<EVERY_BUNDLED>, short_calloc::<EVERY_BUNDLED>),
            (true, true, _) => (short_malloc::<EVERY_FOREIGN>, short_calloc::<EVERY_FOREIGN>),
            (false, false, false) => (short_malloc::<SAMPLED>, short_calloc::<SAMPLED>),
            (false, false, true) => (short_malloc::<SAMPLED_BUNDLED>, short_calloc::<SAMPLED_BUNDLED>),
            (false, true, _) => (short_malloc::<SAMPLED_FOREIGN>, short_calloc::<SAMPLED_FOREIGN>),
        };
        MALLOC.store(malloc as *mut (), Relaxed);
        CALLOC.store(calloc as *mut (), Relaxed);
    }
}

/// Every free has to look whether a context's stack lies in its block.
pub fn close_free() {
    FREE.store(interpose::on_free as Free as *mut (), Relaxed);
    DELETE.store(interpose::delete as Delete as *mut (), Relaxed);
}

/// Every malloc and calloc has to look whether a scan wants the stacks of its size.
pub fn close_malloc() {
    MALLOC.store(interpose::on_malloc as Malloc as *mut (), Relaxed);
    CALLOC.store(interpose::on_calloc as Calloc as *mut (), Relaxed);
}

/// The thread's block, if it has one already.
#[inline(always)]
fn current() -> Option<&'static Thread> {
    let word = thread_word();
    // SAFETY: neither of the two odd values of `tls`, so it is the address of this thread's block, which is never unmapped.
    (word > 1).then(|| unsafe { &*(word as *const Thread) })
}

extern "C" fn short_malloc<const WAY: u8>(size: usize, sp: usize, fp: usize, family: u32) -> usize {
    new::<WAY, false>(size, sp, fp, family)
}

extern "C" fn short_calloc<const WAY: u8>(count: usize, size: usize, sp: usize, fp: usize) -> usize {
    match count.checked_mul(size) {
        Some(total) => new::<WAY, true>(total, sp, fp, Family::Malloc as u32),
        None => interpose::on_calloc(count, size, sp, fp),
    }
}

unsafe extern "C" {
    /// C's, which gives `addr`: the last call, with nothing to be kept for afterwards.
    fn memset(addr: usize, byte: c_int, len: usize) -> usize;
}

/// A new block of `size` bytes, all zeros if `CLEARED`.
#[inline(always)]
fn new<const WAY: u8, const CLEARED: bool>(size: usize, sp: usize, fp: usize, family: u32) -> usize {
    let long_way =
        || if CLEARED { interpose::on_calloc(1, size, sp, fp) } else { interpose::on_malloc(size, sp, fp, family) };
    let Some(thread) = current() else { return long_way() };
    // The note of an operator that has called us, or has not.
    let noted = thread.operator.sp.get() != 0;
    if noted || WAY & SAMPLED != 0 && !thread.sampler.passes(size) {
        return long_way();
    }
    let family = Family::of(family);
    let stack = if WAY & EVERY != 0 { stack::of_caller(thread, Caller { sp, fp, family }) } else { None };
    let ticks = thread.ticks.get().wrapping_sub(1);
    thread.ticks.set(ticks);
    if ticks == 0 {
        trigger::tick_of(thread);
    }
    let (addr, usable) = if WAY & BUNDLED != 0 {
        if CLEARED { bundled::calloc_in(thread, size) } else { bundled::malloc_in(thread, size) }
    } else {
        let foreign = WAY & FOREIGN != 0;
        let request = if foreign { size.max(interpose::SMALLEST) } else { size };
        let addr = if CLEARED { real::calloc_ready(1, request) } else { real::malloc_ready(request) };
        let usable = |addr| if foreign { real::usable_size_ready(addr) } else { interpose::chunk_size(addr) };
        (addr, if addr == 0 { 0 } else { usable(addr) })
    };
    if addr == 0 {
        return interpose::failed();
    }
    let new = New { addr, size, usable, family, stack, chosen: Chosen::No };
    // SAFETY: the ways are opened after tracking has begun, with the map's root; over the bundled allocator spare bytes are ours.
    let left = unsafe {
        let clear = if CLEARED { Clear { up_to: 0 } } else { state::clear() };
        if WAY & FOREIGN != 0 && !addr.is_multiple_of(16) {
            None
        } else if WAY & BUNDLED != 0 {
            TRACKER.on_alloc_ready::<true>(new, clear)
        } else {
            TRACKER.on_alloc_ready::<false>(new, clear)
        }
    };
    match left {
        Some(0) => addr,
        // SAFETY: bytes of the block, which is the caller's.
        Some(left) => unsafe { memset(addr, 0, left) },
        None => enter::<CLEARED>(addr, size, family, stack),
    }
}

/// Enters a block that its cell has no room for, or that is the first in its part of the map.
#[cold]
#[inline(never)]
fn enter<const CLEARED: bool>(addr: usize, size: usize, family: Family, stack: Option<StackId>) -> usize {
    if !CLEARED {
        interpose::fresh(addr, 0, size);
    }
    TRACKER.on_alloc(New { addr, size, usable: interpose::usable(addr), family, stack, chosen: Chosen::No });
    addr
}

/// `NOTED`: an operator delete may have called it. `BUNDLED`: over the bundled allocator.
extern "C" fn short_free<const NOTED: bool, const BUNDLED: bool>(addr: usize, sp: usize, fp: usize) {
    if NOTED && current().is_none_or(|thread| thread.operator.sp.get() != 0) {
        return interpose::on_free(addr, sp, fp);
    }
    // SAFETY: as in `malloc`.
    match unsafe { TRACKER.live.take_ready(addr) } {
        Some(cell) if cell.family() == Family::Malloc => give_back::<BUNDLED>(addr),
        cell => interpose::free_oddly(addr, sp, fp, cell, Family::Malloc),
    }
}

extern "C" fn delete<const BUNDLED: bool>(addr: usize, sp: usize, fp: usize, family: u32) {
    // SAFETY: as in `malloc`.
    match unsafe { TRACKER.live.take_ready(addr) } {
        Some(cell) if cell.family() == Family::of(family) => give_back::<BUNDLED>(addr),
        cell => interpose::free_oddly(addr, sp, fp, cell, Family::of(family)),
    }
}

#[inline(always)]
fn give_back<const BUNDLED: bool>(addr: usize) {
    match BUNDLED.then(current).flatten() {
        Some(thread) => bundled::free_in(thread, addr),
        None => real::free_ready(addr),
    }
}
