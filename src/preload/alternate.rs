//! Alternate signal stacks. Often only the kernel keeps the address: the block is in use, but what a handler that has returned
//! left in it keeps nothing.
#![allow(unsafe_code)] // reads what the program gives to sigaltstack

use crate::{real, tls};
use core::ffi::c_int;
use core::sync::atomic::Ordering::Relaxed;
use leakscan_engine::{AddrRange, sys};

/// glibc's `stack_t`.
#[derive(Clone, Copy)]
#[repr(C)]
struct SignalStack {
    start: usize,
    flags: c_int,
    size: usize,
}

const SS_DISABLE: c_int = 2;

/// sigaltstack: the program's, with a note of where the calling thread's alternate stack lies.
#[unsafe(no_mangle)]
pub extern "C" fn sigaltstack(new: usize, old: usize) -> c_int {
    // One structure for both is written over.
    let kept = if new != 0 && new == old { sys::peek::<3>(new) } else { None };
    let result = real::sigaltstack(new, old);
    if result == 0
        && new != 0
        && let Some(thread) = tls::current()
    {
        let stack = match &kept {
            Some(words) => words.as_ptr() as usize,
            None => new,
        };
        // SAFETY: the kernel has just read it, or it is a copy.
        let stack = unsafe { *(stack as *const SignalStack) };
        let size = if stack.flags & SS_DISABLE == 0 { stack.size } else { 0 };
        thread.alternate.size.store(size, Relaxed);
        thread.alternate.start.store(stack.start, Relaxed);
    }
    result
}

/// Those of all threads, and whose they are. For the snapshot child.
pub fn stacks() -> impl Iterator<Item = (u32, AddrRange)> {
    let all = tls::all().map(|thread| (thread.tid.load(Relaxed), thread.alternate.range()));
    all.filter(|(tid, range)| *tid != 0 && !range.is_empty())
}
