//! Alternate signal stacks. Often only the kernel keeps the address: the block is in use, but what a handler that has returned
//! left in it keeps nothing.
//!
//! A program may give such memory back and use it for something else, and the kernel is not told. So its contents mean nothing only where
//! the kernel's own frame is at its top, which names it, and where it is not another block by now.
#![allow(unsafe_code)] // reads what the program gives to sigaltstack, and the copied memory

use crate::state::TRACKER;
use crate::stop::signal;
use crate::tls::Alternate;
use crate::{real, sandbox, tls};
use core::ffi::c_int;
use core::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use leakscan_engine::AddrRange;
use leakscan_engine::record::live_map::Cell;
use leakscan_engine::scan::blocks::{Blocks, SizeOf};
use leakscan_engine::scan::resident::Pages;
use leakscan_engine::scan::roots::Resident;
use leakscan_engine::sys;

/// glibc's `stack_t`.
#[derive(Clone, Copy)]
struct SignalStack {
    start: usize,
    flags: c_int,
    size: usize,
}

const SS_DISABLE: c_int = 2;

impl SignalStack {
    const fn of([start, flags, size]: [usize; 3]) -> Self {
        Self { start, flags: flags as c_int, size }
    }
    fn range(self) -> AddrRange {
        let size = if self.flags & SS_DISABLE == 0 { self.size } else { 0 };
        AddrRange::new(self.start, self.start.saturating_add(size))
    }
}

/// Where alternate stacks have begun; 0: an empty place.
static STARTS: [AtomicUsize; 1 << 14] = [const { AtomicUsize::new(0) }; 1 << 14];

/// A thread is about to have that stack. If another one has it (as a server's threads may, which will need it but once, at the end),
/// our handlers of the signal that stops threads must not all be on it.
fn is_to_be(stack: AddrRange) {
    if !stack.is_empty()
        && has_been(stack.start)
        && let Some(thread) = tls::current()
        && tls::is_any_other(thread, |other| other.alternate.range().overlaps(stack))
    {
        signal::leave_alternate_stacks();
    }
}

/// Whether a stack has begun there before, or may have; notes that one does now.
fn has_been(start: usize) -> bool {
    const TRIES: usize = 64;
    let first = start.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 50;
    for place in (first..first + TRIES).map(|at| &STARTS[at % STARTS.len()]) {
        match place.compare_exchange(0, start, Relaxed, Relaxed) {
            Ok(_) => return false,
            Err(other) if other == start => return true,
            Err(_) => {}
        }
    }
    true
}

/// sigaltstack: the program's, with a note of where the calling thread's alternate stack lies.
#[unsafe(no_mangle)]
pub extern "C" fn sigaltstack(new: usize, old: usize) -> c_int {
    // (What is given may not be readable; and one structure for both is written over.)
    let words = if new == 0 || sandbox::is_closed() { None } else { sys::peek::<3>(new) };
    let given = words.map(|words| SignalStack::of(words).range());
    if let Some(stack) = given {
        is_to_be(stack);
    }
    let result = real::sigaltstack(new, old);
    if result == 0
        && new != 0
        && let Some(thread) = tls::current()
    {
        // SAFETY: the kernel has just read it, from wherever it lies.
        let words = || unsafe { (new as *const [usize; 3]).read_unaligned() };
        let stack = given.unwrap_or_else(|| SignalStack::of(words()).range());
        thread.alternate.size.store(stack.len(), Relaxed);
        thread.alternate.start.store(stack.start, Relaxed);
        thread.alternate.cell.store(cell(TRACKER.live.get(stack.start)), Relaxed);
    }
    result
}

/// What is known of the block that begins there; 0: none does.
fn cell(cell: Option<Cell>) -> u32 {
    cell.map_or(0, |cell| cell.0)
}

/// Those of all threads, and whose they are. For the snapshot child.
pub fn stacks() -> impl Iterator<Item = (u32, &'static Alternate)> {
    let all = tls::all().map(|thread| (thread.tid.load(Relaxed), &thread.alternate));
    all.filter(|(tid, stack)| *tid != 0 && !stack.range().is_empty())
}

/// Whether what is there was left by a handler. For the snapshot child.
///
/// The kernel writes to a frame which alternate stack it is on: where it does so first, that is the stack's top. Memory that was given back
/// to the kernel has no such frame, nor has a stack that no handler was ever on. One that is taken away from its thread while a
/// handler is on it (SS_AUTODISARM) is for handlers that go on elsewhere.
pub fn is_left<S: SizeOf>(stack: &Alternate, blocks: &Blocks<'_, S>, pages: &mut Pages) -> bool {
    /// A frame with all registers is no larger.
    const FRAME: usize = 32 << 10;
    let range = stack.range();
    if cell(blocks.cell(range.start)) != stack.cell.load(Relaxed) {
        return false;
    }
    let mut is_named = false;
    let top = AddrRange::new(range.start.max(range.end.saturating_sub(FRAME)), range.end);
    pages.each_resident(top, Resident::Private, |run| {
        let (from, to) = (run.start.max(top.start).next_multiple_of(8), run.end.min(top.end));
        is_named |= (from..to.saturating_sub(16)).step_by(8).any(|at| {
            // SAFETY: pages that exist; those that cannot be read are repaired.
            let [start, flags, size] = unsafe { *(at as *const [usize; 3]) };
            start == range.start && flags as u32 == 0 && size == range.len()
        });
    });
    is_named
}
