//! Alternate signal stacks.
//!
//! The program's: often only the kernel keeps the address, so that the block is in use, but what a handler that has returned left in it
//! keeps nothing.
//!
//! Ours: where a thread has none, our handlers have one of ours, since a stack that is used up leaves them no room (see [`crate::fatal`]). The program is told that there is none, and none of its own handlers runs there: the first that asks for an
//! alternate stack (SA_ONSTACK) takes ours away.
#![allow(unsafe_code)] // reads what the program gives to sigaltstack

use crate::{real, stop, tls};
use core::cell::UnsafeCell;
use core::ffi::c_int;
use core::sync::atomic::{AtomicBool, Ordering::Relaxed};
use leakscan_engine::{AddrRange, arena};

/// glibc's `stack_t`.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct SignalStack {
    start: usize,
    flags: c_int,
    size: usize,
}

const SS_DISABLE: c_int = 2;
static NONE: SignalStack = SignalStack { start: 0, flags: SS_DISABLE, size: 0 };

/// More than the handler takes, and the kernel's frame of the largest registers.
const SIZE: usize = 32 << 10;

/// The first thread's: no mapping for each process.
#[repr(align(64))]
struct Memory(UnsafeCell<[u8; SIZE]>);
// SAFETY: only the kernel puts a thread there.
unsafe impl Sync for Memory {}
static FIRST: Memory = Memory(UnsafeCell::new([0; SIZE]));
/// Threads get one of ours.
static GIVEN: AtomicBool = AtomicBool::new(false);

/// From now on threads have one of ours, the caller at once. For the constructor, in the first thread.
pub fn init() {
    GIVEN.store(true, Relaxed);
    if let Some(thread) = tls::current() {
        thread.own_alternate.store(FIRST.0.get() as usize, Relaxed);
        put(thread);
    }
}

/// The calling thread has just started.
pub fn give(thread: &tls::Thread) {
    if !GIVEN.load(Relaxed) {
        return;
    }
    if thread.own_alternate.load(Relaxed) == 0 {
        // The block's next thread has it, too.
        let Some(memory) = arena::map(SIZE) else { return };
        thread.own_alternate.store(memory.start, Relaxed);
    }
    put(thread);
}

fn put(thread: &tls::Thread) {
    let ours = SignalStack { start: thread.own_alternate.load(Relaxed), flags: 0, size: SIZE };
    real::sigaltstack(&raw const ours as usize, 0);
}

/// A handler of the program's is to run on the alternate stack, if there is one.
pub fn is_asked_for() {
    if !GIVEN.swap(false, Relaxed) {
        return;
    }
    let Some(thread) = tls::current() else { return };
    if thread.own_alternate.load(Relaxed) != 0 && thread.alternate.size.load(Relaxed) == 0 {
        real::sigaltstack(&raw const NONE as usize, 0);
    }
}

/// sigaltstack: the program's, with a note of where the calling thread's alternate stack lies.
///
/// # Safety
/// As the C function of that name.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sigaltstack(new: *const SignalStack, old: *mut SignalStack) -> c_int {
    // SAFETY: by this function's own contract. Both may be one.
    let wanted = unsafe { new.as_ref() }.copied();
    let result = real::sigaltstack(new as usize, old as usize);
    let Some(thread) = tls::current().filter(|_| result == 0) else { return result };
    let ours = thread.own_alternate.load(Relaxed);
    // SAFETY: as above.
    if let Some(old) = unsafe { old.as_mut() }.filter(|old| ours != 0 && old.start == ours) {
        *old = SignalStack { ..NONE };
    }
    if let Some(wanted) = wanted {
        let size = if wanted.flags & SS_DISABLE == 0 { wanted.size } else { 0 };
        thread.alternate.size.store(size, Relaxed);
        thread.alternate.start.store(wanted.start, Relaxed);
        if size == 0 && ours != 0 && GIVEN.load(Relaxed) {
            put(thread);
        }
    }
    result
}

/// The program's, of all threads. For the snapshot child.
pub fn stacks() -> impl Iterator<Item = AddrRange> {
    tls::all().filter(|thread| thread.tid.load(Relaxed) != 0).filter_map(|thread| {
        let (start, size) = (thread.alternate.start.load(Relaxed), thread.alternate.size.load(Relaxed));
        (size != 0).then(|| AddrRange::new(start, start.saturating_add(size)))
    })
}

/// Notes the stack pointer of what the calling thread was at, if the kernel has put it on one of ours, with this context.
pub fn interrupted(context: *const usize) {
    let Some(thread) = tls::current() else { return };
    let start = thread.own_alternate.load(Relaxed);
    if start != 0 && AddrRange::new(start, start + SIZE).contains(context as usize) {
        // SAFETY: nothing but the kernel's frame of the handler that calls us lies there.
        let (sp, ..) = unsafe { stop::interrupted(context, &mut [0; stop::GENERAL]) };
        thread.interrupted.store(sp, Relaxed);
    }
}

/// The one of ours that a stack pointer lies in, and the stack pointer of what was interrupted there. For the snapshot child.
pub fn ours(sp: usize) -> Option<(AddrRange, usize)> {
    tls::all().find_map(|thread| {
        let start = thread.own_alternate.load(Relaxed);
        let stack = AddrRange::new(start, start + SIZE);
        (start != 0 && stack.contains(sp)).then(|| (stack, thread.interrupted.load(Relaxed)))
    })
}
