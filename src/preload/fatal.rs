//! Ends that come to no exit: by a signal, and by a system call past libc's exit.
//!
//! Where the program leaves a signal that ends it at its default action there is a handler of ours (`fatal=0`: none): a last scan, then
//! the end as it would have been. The program is told that there is none, and gets it back when it sets the default again. Where it
//! has a handler of its own, or ignores the signal, nothing changes; nor does a stack that is used up and leaves a handler no room.
#![allow(unsafe_code)] // exported functions; reads what the kernel hands to a handler, sends the signal again

use crate::stop::signal::{self as asks, Action, SA_ONSTACK, SA_SIGINFO, install};
use crate::{real, regions, sandbox, trigger, userfaultfd};
use core::ffi::{c_int, c_long, c_void};
use core::sync::atomic::{AtomicBool, Ordering::Relaxed};
use leakscan_engine::sys::{self, nr};

const SIGILL: c_int = 4;
pub const SIGABRT: c_int = 6;
const SIGBUS: c_int = 7;
const SIGFPE: c_int = 8;
const SIGKILL: c_int = 9;
const SIGSEGV: c_int = 11;
/// Those at a fault of the program's own: SIGILL, SIGTRAP, SIGABRT, SIGBUS, SIGFPE, SIGSEGV, SIGSYS.
const FAULTS: [c_int; 7] = [SIGILL, 5, SIGABRT, SIGBUS, SIGFPE, SIGSEGV, 31];
/// Those that end it from outside: SIGHUP, SIGINT, SIGQUIT, SIGUSR1, SIGUSR2, SIGPIPE, SIGALRM, SIGTERM, SIGSTKFLT, SIGXCPU, SIGXFSZ, SIGVTALRM,
/// SIGPROF, SIGIO, SIGPWR, and the real-time ones that libc leaves to programs. The first process of a container gets none of them while it
/// has no handler.
const OTHERS: [c_int; 15] = [1, 2, 3, 10, 12, 13, 14, 15, 16, 24, 25, 26, 27, 29, 30];
const REAL_TIME: core::ops::RangeInclusive<c_int> = 34..=64;
/// After it the default action holds again.
const SA_RESETHAND: c_int = 0x8000_0000u32.cast_signed();
const SIG_DFL: usize = 0;

static ON: AtomicBool = AtomicBool::new(false);

/// For the constructor.
pub fn init() {
    ON.store(true, Relaxed);
    // One that the program was started to ignore must not come to us before it is ignored again.
    let mask = trigger::block_signals();
    let new = Action { handler: ours(), mask: [u64::MAX; 16], flags: FLAGS, restorer: 0 };
    for signal in watched() {
        let mut old = Action::DEFAULT;
        // SAFETY: glibc reads the one action and writes the other; the handler lives as long as the library.
        unsafe {
            if real::sigaction(signal, &raw const new, &raw mut old) == 0 && old.handler != SIG_DFL {
                real::sigaction(signal, &raw const old, core::ptr::null_mut());
            }
        }
    }
    trigger::restore_signals(mask);
}

/// The default actions come back: no end is to come to us any more. Gives whether any did.
pub fn leave() -> bool {
    let was_on = ON.swap(false, Relaxed);
    if was_on {
        put_back(watched());
    }
    was_on
}

/// Takes [`leave`] back, while other threads run: a signal that is ignored must not come to us meanwhile.
pub fn come_again() {
    ON.store(true, Relaxed);
    watched().for_each(put);
}

fn put_back(signals: impl Iterator<Item = c_int>) {
    let default = Action::DEFAULT;
    for signal in signals.filter(|signal| is_in_place(*signal)) {
        // SAFETY: glibc reads the action.
        unsafe { real::sigaction(signal, &raw const default, core::ptr::null_mut()) };
    }
}

/// The child of a fork may be the first process of a container.
pub fn forked() {
    if ON.load(Relaxed) && sys::getpid() == 1 {
        put_back(others());
    }
}

fn watched() -> impl Iterator<Item = c_int> {
    let is_first = sys::getpid() == 1;
    FAULTS.into_iter().chain(others().filter(move |_| !is_first))
}

fn others() -> impl Iterator<Item = c_int> {
    OTHERS.into_iter().chain(REAL_TIME.filter(|signal| *signal as u32 != asks::number()))
}

/// Puts our handler in place of the default action.
fn put(signal: c_int) {
    install(signal, ours(), FLAGS, SIG_DFL);
}

const FLAGS: c_int = SA_SIGINFO | SA_ONSTACK | SA_RESETHAND;

fn ours() -> usize {
    handle as *const () as usize
}

fn is_watched(signal: c_int) -> bool {
    ON.load(Relaxed) && watched().any(|watched| watched == signal)
}

/// Whether our handler is in place.
pub fn handles(signal: c_int) -> bool {
    ON.load(Relaxed) && is_in_place(signal)
}

fn is_in_place(signal: c_int) -> bool {
    let mut now = Action::DEFAULT;
    // SAFETY: sigaction writes one action.
    unsafe { real::sigaction(signal, core::ptr::null(), &raw mut now) == 0 && now.handler == ours() }
}

/// Whether a thread that blocks these signals is in a handler of a fault, or in ours: such a signal is blocked there, and hardly elsewhere.
pub fn is_in_handler(mask: u64) -> bool {
    FAULTS.iter().any(|signal| mask >> (signal - 1) & 1 != 0)
}

unsafe extern "C" fn handle(signal: c_int, info: *const i32, _: *const c_void) {
    const MEMORY_FAILED_ELSEWHERE: i32 = 5;
    trigger::last();
    // The default action, even where a handler of the program's has called this one.
    let action = [0usize; 4];
    // SAFETY: the kernel reads the four words.
    let _ = unsafe { sys::call(nr::RT_SIGACTION, [signal as usize, action.as_ptr() as usize, 0, 8, 0, 0]) };
    // A siginfo: number, errno, code. A program that has got hold of our address may call it with anything.
    let told = sys::peek::<2>(info as usize).filter(|words| words[0] as u32 == signal as u32);
    let code = told.map_or(0, |words| words[1] as u32 as i32);
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
        // Before the call: both may be one.
        let to_default = is_watched(signal) && new.as_ref().is_some_and(|new| new.handler == SIG_DFL);
        let result = real::sigaction(signal, new, old);
        if result == 0 {
            if let Some(old) = old.as_mut().filter(|old| old.handler == ours()) {
                *old = Action { restorer: old.restorer, ..Action::DEFAULT };
            }
            if to_default {
                put(signal);
            }
        }
        result
    }
}

/// What `signal` is in programs that keep to System V or to C alone: the handler is gone with its first call.
#[unsafe(no_mangle)]
pub extern "C" fn __sysv_signal(signal: c_int, handler: usize) -> usize {
    const SA_NODEFER: c_int = 0x4000_0000;
    const SIG_ERR: usize = usize::MAX;
    if handler == SIG_ERR {
        // As libc says of it, and of no signal's number.
        return real::signal(signal, handler);
    }
    let new = Action { handler, flags: SA_RESETHAND | SA_NODEFER, ..Action::DEFAULT };
    let mut old = Action::DEFAULT;
    // SAFETY: an action to read, and one to write.
    if unsafe { sigaction(signal, &raw const new, &raw mut old) } == 0 { old.handler } else { SIG_ERR }
}

/// Its other name.
#[unsafe(no_mangle)]
pub extern "C" fn sysv_signal(signal: c_int, handler: usize) -> usize {
    __sysv_signal(signal, handler)
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
    if signal == SIGKILL
        && let Some(_inside) = sandbox::enter()
        && (process == 0 || process == sys::getpid() as c_int)
    {
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

/// syscall: the program's, where it ends the program, makes it another one, changes its root, lets it serve its own page faults, advises of memory, or puts on a
/// filter; or any, before the real one is known.
pub extern "C" fn syscall(number: c_long, a: usize, b: usize, c: usize, d: usize, e: usize, f: usize) -> c_long {
    match number as usize {
        nr::EXIT_GROUP => trigger::last(),
        nr::EXECVE | nr::EXECVEAT => trigger::before_exec(),
        nr::CHROOT => trigger::before_chroot(a),
        nr::USERFAULTFD => userfaultfd::SEEN.store(true, Relaxed),
        _ => {}
    }
    let result = sandbox::around_call(number, [a, b, c], || real::syscall(number, a, b, c, d, e, f));
    if number as usize == nr::MADVISE && result == 0 {
        regions::advised(c as c_int);
    }
    result
}
