//! Ends by a signal, where they are asked for (`fatal=1`): a last scan in a handler, then the end as it would have been.
//!
//! Off by default: the program would find a handler where there was none. Where it has one of its own, or ignores the signal, nothing
//! changes; nor does SIGKILL, or a stack that is used up and leaves a handler no room.
#![allow(unsafe_code)] // reads what the kernel hands to a handler, sends the signal again

use crate::stop::signal::{SA_ONSTACK, SA_SIGINFO, install};
use crate::trigger;
use core::ffi::{c_int, c_void};
use leakscan_engine::sys::{self, nr};

const SIGILL: c_int = 4;
const SIGBUS: c_int = 7;
const SIGFPE: c_int = 8;
const SIGSEGV: c_int = 11;
/// Those at a fault of the program's own: SIGILL, SIGTRAP, SIGABRT, SIGBUS, SIGFPE, SIGSEGV, SIGSYS; those that end it from outside: SIGHUP,
/// SIGINT, SIGQUIT, SIGALRM, SIGTERM, SIGXCPU, SIGXFSZ.
const SIGNALS: [c_int; 14] = [SIGILL, 5, 6, SIGBUS, SIGFPE, SIGSEGV, 31, 1, 2, 3, 14, 15, 24, 25];
/// After it the default action holds again.
const SA_RESETHAND: c_int = 0x8000_0000u32.cast_signed();

/// For the constructor.
pub fn init() {
    for signal in SIGNALS {
        install(signal, handle as *const () as usize, SA_SIGINFO | SA_ONSTACK | SA_RESETHAND, 0);
    }
}

unsafe extern "C" fn handle(signal: c_int, info: *const i32, _: *const c_void) {
    const MEMORY_FAILED_ELSEWHERE: i32 = 5;
    trigger::last();
    // The default action, even where a handler of the program's has called this one.
    let action = [0usize; 4];
    // SAFETY: the kernel reads the four words.
    let _ = unsafe { sys::call(nr::RT_SIGACTION, [signal as usize, action.as_ptr() as usize, 0, 8, 0, 0]) };
    // SAFETY: the kernel gives a siginfo: number, errno, code.
    let code = unsafe { *info.add(2) };
    let faulted = code > 0
        && [SIGILL, SIGBUS, SIGFPE, SIGSEGV].contains(&signal)
        && !(signal == SIGBUS && code == MEMORY_FAILED_ELSEWHERE);
    if !faulted {
        // Held back until we return. A fault comes again by itself, so that a core file shows where.
        let args = [sys::getpid() as usize, sys::gettid() as usize, signal as usize, 0, 0, 0];
        // SAFETY: sends this thread the signal that it has just had.
        let _ = unsafe { sys::call(nr::TGKILL, args) };
    }
}
