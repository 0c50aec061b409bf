//! Ends that come to no exit: by a signal, and by a system call past libc's exit.
//!
//! Where the program leaves a signal that ends it at its default action there is a handler of ours (`fatal=0`: none): a last scan, then
//! the end as it would have been. The program is told that there is none, and gets it back when it sets the default again. Where it
//! has a handler of its own, or ignores the signal, nothing changes; nor does a stack that is used up and leaves a handler no room.
#![allow(unsafe_code)] // exported functions; reads what the kernel hands to a handler, sends the signal again

use crate::stop::signal::{Action, SA_ONSTACK, SA_SIGINFO, install};
use crate::{real, trigger};
use core::ffi::{c_int, c_long, c_void};
use core::sync::atomic::{AtomicBool, Ordering::Relaxed};
use leakscan_engine::sys::{self, nr};

const SIGILL: c_int = 4;
pub const SIGABRT: c_int = 6;
const SIGBUS: c_int = 7;
const SIGFPE: c_int = 8;
const SIGKILL: c_int = 9;
const SIGSEGV: c_int = 11;
/// Those at a fault of the program's own: SIGILL, SIGTRAP, SIGABRT, SIGBUS, SIGFPE, SIGSEGV, SIGSYS; those that end it from outside: SIGHUP,
/// SIGINT, SIGQUIT, SIGUSR1, SIGUSR2, SIGPIPE, SIGALRM, SIGTERM, SIGXCPU, SIGXFSZ.
const SIGNALS: [c_int; 17] = [SIGILL, 5, SIGABRT, SIGBUS, SIGFPE, SIGSEGV, 31, 1, 2, 3, 10, 12, 13, 14, 15, 24, 25];
/// After it the default action holds again.
const SA_RESETHAND: c_int = 0x8000_0000u32.cast_signed();
const SIG_DFL: usize = 0;

static ON: AtomicBool = AtomicBool::new(false);

/// For the constructor.
pub fn init() {
    ON.store(true, Relaxed);
    SIGNALS.into_iter().for_each(put);
}

/// Puts our handler in place of the default action.
fn put(signal: c_int) {
    install(signal, ours(), SA_SIGINFO | SA_ONSTACK | SA_RESETHAND, SIG_DFL);
}

fn ours() -> usize {
    handle as *const () as usize
}

fn is_watched(signal: c_int) -> bool {
    ON.load(Relaxed) && SIGNALS.contains(&signal)
}

/// Whether our handler is in place.
pub fn handles(signal: c_int) -> bool {
    let mut now = Action::DEFAULT;
    // SAFETY: sigaction writes one action.
    ON.load(Relaxed)
        && unsafe { real::sigaction(signal, core::ptr::null(), &raw mut now) } == 0
        && now.handler == ours()
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

/// sigaction: the program's, for which our handler is the default action.
///
/// # Safety
/// As the C function of that name.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sigaction(signal: c_int, new: *const Action, old: *mut Action) -> c_int {
    // SAFETY: by this function's own contract.
    unsafe {
        let result = real::sigaction(signal, new, old);
        if result == 0 && is_watched(signal) {
            if let Some(old) = old.as_mut().filter(|old| old.handler == ours()) {
                *old = Action { restorer: old.restorer, ..Action::DEFAULT };
            }
            if new.as_ref().is_some_and(|new| new.handler == SIG_DFL) {
                put(signal);
            }
        }
        result
    }
}

/// signal: the same.
#[unsafe(no_mangle)]
pub extern "C" fn signal(signal: c_int, handler: usize) -> usize {
    let old = real::signal(signal, handler);
    if !is_watched(signal) {
        return old;
    }
    if handler == SIG_DFL {
        put(signal);
    }
    if old == ours() { SIG_DFL } else { old }
}

/// kill: the program's. SIGKILL to itself is an end.
#[unsafe(no_mangle)]
pub extern "C" fn kill(process: c_int, signal: c_int) -> c_int {
    // 0: all of its group.
    if signal == SIGKILL && (process == 0 || process == sys::getpid() as c_int) {
        trigger::maybe_last();
    }
    real::kill(process, signal)
}

/// raise: the same.
#[unsafe(no_mangle)]
pub extern "C" fn raise(signal: c_int) -> c_int {
    if signal == SIGKILL {
        trigger::maybe_last();
    }
    real::raise(signal)
}

/// A system call that ends the program, or makes it another one, is about to be made by libc's `syscall`; or any, before the real one
/// is known.
pub extern "C" fn before_call(number: c_long) {
    real::ready();
    match number as usize {
        nr::EXIT_GROUP => trigger::last(),
        nr::EXECVE | nr::EXECVEAT => trigger::before_exec(),
        _ => {}
    }
}
