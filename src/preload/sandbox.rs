//! Filters that the program puts on its own system calls (seccomp): where one would end it for what a scan asks of the kernel, there is a
//! last scan before it comes, and nothing after.
//!
//! A filter that was there when the program began is not known. (Services and containers have such: they refuse, or end who traces,
//! which a helper does.) Nor is one by a system call of the program's own.
#![allow(unsafe_code)] // reads the filter that the program gives to the kernel

use crate::{bundled, fatal, real, settings, trigger};
use core::ffi::{c_int, c_long};
use core::sync::atomic::{AtomicBool, Ordering::Relaxed};
use leakscan_engine::seccomp::{Call, Instruction, LONGEST, ends};
use leakscan_engine::sys::{self, nr};

/// There is such a filter: no scan, and no system call of ours that the program would not make without us.
static CLOSED: AtomicBool = AtomicBool::new(false);

pub fn is_closed() -> bool {
    CLOSED.load(Relaxed)
}

const PR_SET_SECCOMP: c_int = 22;
const STRICT: usize = 1;
const FILTER: usize = 2;

/// prctl: the program's, where it may put on a filter.
pub extern "C" fn prctl(option: c_int, a: usize, b: usize, c: usize, d: usize) -> c_int {
    let put = || real::prctl(option, a, b, c, d);
    if option != PR_SET_SECCOMP { put() } else { around(a, b, put, |result| *result == 0) }
}

/// The same for a system call by number, of which these are the first arguments.
pub fn around_call(number: c_long, [a, b, c]: [usize; 3], put: impl FnOnce() -> c_long) -> c_long {
    match number as usize {
        nr::PRCTL if a == PR_SET_SECCOMP as usize => around(b, c, put, |result| *result == 0),
        // Its operations are one less than prctl's modes. With SECCOMP_FILTER_FLAG_NEW_LISTENER it gives a descriptor.
        nr::SECCOMP if a < FILTER => around(a + 1, c, put, |result| *result >= 0),
        _ => put(),
    }
}

/// Puts on a filter by `put`, which has been put on if `is_on` says so.
fn around<T>(mode: usize, filter: usize, put: impl FnOnce() -> T, is_on: impl FnOnce(&T) -> bool) -> T {
    let closes = !is_closed() && (mode == STRICT || mode == FILTER && would_end_us(filter));
    if closes {
        trigger::before_filter();
        bundled::begin_below();
        // What ends the program from here on is not to come to us first.
        fatal::leave();
    }
    let result = put();
    if closes && is_on(&result) {
        CLOSED.store(true, Relaxed);
        // What the program becomes, or starts, has the filter, too.
        settings::leave_environment_late();
    }
    result
}

/// Of `struct sock_fprog`, whose first word is the number of instructions.
fn would_end_us(program: usize) -> bool {
    let Some([len, start]) = sys::peek(program) else { return false };
    let len = len & 0xffff;
    if len > LONGEST || !start.is_multiple_of(align_of::<Instruction>()) {
        return false;
    }
    if !sys::can_read_all(start, len * size_of::<Instruction>()) {
        return false;
    }
    // SAFETY: it can be read, and any bytes are instructions. (By a thread that gives its memory away meanwhile the kernel is asked in vain.)
    let filter = unsafe { core::slice::from_raw_parts(start as *const Instruction, len) };
    calls().any(|call| ends(filter, &call))
}

/// What is called by threads of the program itself, not by helpers and the snapshot child, whose end it survives.
fn calls() -> impl Iterator<Item = Call> {
    const CLONE_VM: u64 = 0x100;
    const CLONE_VFORK: u64 = 0x4000;
    const OF_A_HELPER: u64 = CLONE_VM | 0x200 | 0x400 | 0x80_0000;
    const PLAIN: [usize; 23] = [
        nr::READ,
        nr::WRITE,
        nr::CLOSE,
        nr::NEWFSTATAT,
        nr::MMAP,
        nr::MUNMAP,
        nr::MADVISE,
        nr::RT_SIGACTION,
        nr::RT_SIGPROCMASK,
        nr::RT_SIGPENDING,
        nr::NANOSLEEP,
        nr::GETPID,
        nr::GETTID,
        nr::WAIT4,
        nr::FUTEX,
        nr::GETDENTS64,
        nr::CLOCK_GETTIME,
        nr::TGKILL,
        nr::OPENAT,
        nr::IOCTL,
        nr::PREAD64,
        nr::FACCESSAT,
        nr::READLINKAT,
    ];
    let plain = PLAIN.into_iter().map(|number| Call { number: number as u32, ..Call::default() });
    let clones = [0, CLONE_VM | CLONE_VFORK, OF_A_HELPER];
    plain.chain(clones.map(|flags| Call { number: nr::CLONE as u32, args: [flags, 0, 0, 0, 0, 0] }))
}
