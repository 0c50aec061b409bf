//! The short ways through malloc and free, for what nearly every call of theirs is: a block that gets its stack, or under sampling one
//! that gets none, and the free of a block by the family that made it. Whatever is out of the ordinary goes on in [`crate::interpose`].
//!
//! Measured by `scripts/check-hot-path`, which also holds the bounds.
#![allow(unsafe_code)] // calls functions by address, takes the thread's word for its block

use crate::interpose::{self, Caller};
use crate::shims::thread_word;
use crate::state::{self, TRACKER};
use crate::tls::Thread;
use crate::{real, trigger};
use core::sync::atomic::{AtomicBool, AtomicU8, Ordering::Relaxed};
use leakscan_engine::record::live_map::Family;
use leakscan_engine::record::{Chosen, New};

const CLOSED: u8 = 0;
/// Over another allocator than glibc's.
const FOREIGN: u8 = 1;
const SAMPLED: u8 = 2;
const EVERY: u8 = 4;
const SAMPLED_FOREIGN: u8 = SAMPLED | FOREIGN;
const EVERY_FOREIGN: u8 = EVERY | FOREIGN;
static MALLOC: AtomicU8 = AtomicU8::new(CLOSED);
static FREE: AtomicBool = AtomicBool::new(false);

/// Opens the ways that the options leave open. For the constructor, when all else is done.
pub fn open() {
    FREE.store(state::FORGET.load(Relaxed) == 0, Relaxed);
    let foreign = state::FOREIGN_ALLOCATOR.load(Relaxed);
    let cannot_tell_sizes = foreign && real::MALLOC_USABLE_SIZE.load(Relaxed) == 0;
    if !state::ZERO.load(Relaxed) && !cannot_tell_sizes {
        let which = if state::SAMPLE.load(Relaxed) == 0 { EVERY } else { SAMPLED };
        MALLOC.store(which | if foreign { FOREIGN } else { 0 }, Relaxed);
    }
}

/// Every malloc has to look whether a scan wants the stacks of its size.
pub fn close_malloc() {
    MALLOC.store(CLOSED, Relaxed);
}

/// The thread's block, if it has one already.
#[inline(always)]
fn current() -> Option<&'static Thread> {
    let word = thread_word();
    // SAFETY: neither of the two odd values of `tls`, so it is the address of this thread's block, which is never unmapped.
    (word > 1).then(|| unsafe { &*(word as *const Thread) })
}

pub extern "C" fn malloc(size: usize, sp: usize, fp: usize) -> usize {
    match MALLOC.load(Relaxed) {
        EVERY => shortly::<EVERY>(size, sp, fp),
        SAMPLED => shortly::<SAMPLED>(size, sp, fp),
        EVERY_FOREIGN => shortly::<EVERY_FOREIGN>(size, sp, fp),
        SAMPLED_FOREIGN => shortly::<SAMPLED_FOREIGN>(size, sp, fp),
        _ => interpose::malloc(size, sp, fp),
    }
}

#[inline(never)]
fn shortly<const WAY: u8>(size: usize, sp: usize, fp: usize) -> usize {
    let foreign = WAY & FOREIGN != 0;
    let addr = real::malloc_ready(if foreign { size.max(interpose::SMALLEST) } else { size });
    let Some(thread) = current() else { return interpose::born_oddly(addr, size, sp, fp) };
    if addr == 0 || WAY & SAMPLED != 0 && !thread.sampler.passes(size) {
        return interpose::born_oddly(addr, size, sp, fp);
    }
    let (caller, family) = match thread.operator.take() {
        Some(operator) if operator.has_called(sp) => (Caller { sp: operator.sp, fp: operator.fp }, operator.family),
        _ => (Caller { sp, fp }, Family::Malloc),
    };
    let stack = if WAY & EVERY != 0 { interpose::stack(thread, caller) } else { None };
    let usable = if foreign { real::usable_size_ready(addr) } else { interpose::chunk_size(addr) };
    TRACKER.on_alloc(New { addr, size, usable, family, stack, chosen: Chosen::No });
    let ticks = thread.ticks.get().wrapping_sub(1);
    thread.ticks.set(ticks);
    if ticks == 0 {
        trigger::tick_of(thread);
    }
    addr
}

pub extern "C" fn free(addr: usize, sp: usize, fp: usize) {
    let Some(thread) = current() else { return interpose::free(addr, sp, fp) };
    if addr == 0 || !FREE.load(Relaxed) {
        return interpose::free(addr, sp, fp);
    }
    if thread.operator.sp.get() != 0 {
        return delete(thread, addr, sp, fp);
    }
    match TRACKER.live.take(addr) {
        Some(cell) if cell.family() == Family::Malloc => real::free_ready(addr),
        cell => interpose::free_oddly(addr, None, cell, sp, fp),
    }
}

/// An operator delete has been called.
#[inline(never)]
fn delete(thread: &Thread, addr: usize, sp: usize, fp: usize) {
    let by = thread.operator.take();
    let cell = TRACKER.live.take(addr);
    match (by, cell) {
        (Some(by), Some(cell)) if by.deletes && by.sp == sp && by.family == cell.family() => real::free_ready(addr),
        _ => interpose::free_oddly(addr, by, cell, sp, fp),
    }
}
