//! A second process that shares the program's memory and outlives it (`watch=`): for the ends that nobody in the program is told of.
//!
//! SIGKILL, a stack that is used up, the system call of exit by an instruction of the program's own: then that process, which waits at
//! the program's pidfd, makes the last scan. The memory is as the program has left it. What its registers held is gone with it, so that
//! nothing is confirmed by such a scan alone.
//!
//! It is no child of the program's: who made it has ended, so that no wait sees it. It has no descriptor of the program's, no
//! directory, no terminal, and another session. What it has is the rights that the program had at the start, in memory that the program
//! writes: a program that has rights, and may give them up, gets none unless `watch=root` says so.
#![allow(unsafe_code)] // clones a process onto a stack of its own

use crate::settings::{self, Settings};
use crate::shims::clone_onto;
use crate::{snapshot, trigger};
use core::sync::atomic::{AtomicU32, AtomicUsize, Ordering::Acquire, Ordering::Relaxed, Ordering::Release};
use leakscan_engine::arena;
use leakscan_engine::sys::{self, Errno, nr};

const STACK: usize = 64 << 10;
const CLONE_VM: usize = 0x100;
const CLONE_UNTRACED: usize = 0x80_0000;
const WCLONE: usize = 0x8000_0000;
const SECOND: u64 = 1_000_000_000;

/// The two stacks; 0: not mapped yet.
static STACKS: AtomicUsize = AtomicUsize::new(0);
/// What has become of it: [`ABSENT`], [`WAITS`], or 1 and more, the reason why there is none.
static STATE: AtomicU32 = AtomicU32::new(ABSENT);
const ABSENT: u32 = 0;
const WAITS: u32 = u32::MAX;
const RIGHTS: u32 = 1;
const FIRST: u32 = 2;
const REFUSED: u32 = 3;

/// Why there is none, though one was asked for.
pub fn missing() -> Option<&'static [u8]> {
    match STATE.load(Relaxed) {
        ABSENT | WAITS => None,
        RIGHTS => Some(b"the program has rights that it could give up; watch=root lets that process keep them"),
        FIRST => Some(b"the program is the first process of its container, with which all others end"),
        _ => Some(b"the kernel refused it (Linux 5.9 is needed, and a filter may be in the way)"),
    }
}

/// Starts it, if it is asked for. By the constructor, and in the child of a fork.
pub fn start(settings: &Settings) {
    STATE.store(ABSENT, Relaxed);
    let watch = settings.options.watch;
    if watch == "0" || !settings.options.scan_at_exit {
        return;
    }
    let refused = if sys::getpid() == 1 {
        FIRST
    } else if watch != "root" && has_rights() {
        RIGHTS
    } else if make() {
        return;
    } else {
        REFUSED
    };
    STATE.store(refused, Relaxed);
}

/// Whether this process may do what others of its user may not.
fn has_rights() -> bool {
    const VERSION_3: u32 = 0x2008_0522;
    let header = [VERSION_3, 0];
    let mut sets = [0u32; 6];
    // SAFETY: takes no arguments; the kernel reads the header and writes three sets of 64 bits.
    unsafe {
        sys::syscall(nr::GETEUID, [0; 6]) == 0
            || sys::call(nr::CAPGET, [header.as_ptr() as usize, sets.as_mut_ptr() as usize, 0, 0, 0, 0]).is_err()
            || sets[1] | sets[4] != 0
    }
}

fn make() -> bool {
    if STACKS.load(Relaxed) == 0 {
        let Some(stacks) = arena::map(2 * STACK) else { return false };
        STACKS.store(stacks.start, Relaxed);
    }
    // It is to have all of them blocked from its first moment.
    let mask = trigger::block_signals();
    let top = STACKS.load(Relaxed) + STACK;
    // SAFETY: the stacks are used by one such process at a time; both functions use no thread-local state and end themselves.
    let maker = unsafe { clone_onto(CLONE_VM | CLONE_UNTRACED, top, make_and_end, top + STACK) };
    if maker > 0 {
        // SAFETY: no status is asked for.
        while unsafe { sys::call(nr::WAIT4, [maker as usize, 0, WCLONE, 0, 0, 0]) } == Err(Errno::EINTR) {}
    }
    let started = sys::clock_ns(sys::CLOCK_MONOTONIC);
    while maker > 0 && STATE.load(Acquire) == ABSENT && sys::clock_ns(sys::CLOCK_MONOTONIC) - started < SECOND {
        sys::futex_wait(&STATE, ABSENT, Some(SECOND));
    }
    trigger::restore_signals(mask);
    STATE.load(Acquire) == WAITS
}

/// So that it is an orphan, for whom nobody here waits.
extern "C" fn make_and_end(top: usize) -> ! {
    // SAFETY: as in `make`.
    if unsafe { clone_onto(CLONE_VM | CLONE_UNTRACED, top, watch, 0) } < 0 {
        tell(REFUSED);
    }
    end()
}

fn tell(state: u32) {
    STATE.store(state, Release);
    sys::futex_wake(&STATE, 1);
}

fn end() -> ! {
    loop {
        // SAFETY: ends this process.
        unsafe { sys::syscall(nr::EXIT_GROUP, [0; 6]) };
    }
}

extern "C" fn watch(_: usize) -> ! {
    let program = settings::PID.load(Relaxed);
    let Some(door) = leave_everything(program) else {
        tell(REFUSED);
        end()
    };
    tell(WAITS);
    const POLLIN: u64 = 1;
    /// How often it looks whether there is another program in the process.
    const PERIOD_NS: usize = 500_000_000;
    loop {
        let (mut poll, period) = (door as u64 | POLLIN << 32, [0, PERIOD_NS]);
        // SAFETY: the kernel reads and writes one `pollfd`, and reads the time.
        match unsafe { sys::call(nr::PPOLL, [&raw mut poll as usize, 1, period.as_ptr() as usize, 0, 8, 0]) } {
            Ok(1..) => break,
            Ok(0) if !has_become_another(program) => {}
            Err(Errno::EINTR) => {}
            _ => end(),
        }
    }
    if !trigger::is_over() && !snapshot::is_in_place() {
        trigger::after_the_end();
    }
    end()
}

/// Keeps nothing of the program's but its memory, and gives a descriptor that can be read when it has ended.
fn leave_everything(program: u32) -> Option<usize> {
    const PR_SET_NAME: usize = 15;
    let mut name = [0u8; 16];
    name[..8].copy_from_slice(b"lswatch:");
    let mut digits = [0; 20];
    let number = sys::decimal(u64::from(program), &mut digits);
    name[8..8 + number.len()].copy_from_slice(number);
    // SAFETY: this process's own descriptors, session, directory and name; the kernel reads the two texts.
    unsafe {
        sys::call(nr::CLOSE_RANGE, [0, usize::MAX >> 33, 0, 0, 0, 0]).ok()?;
        // What would be said on stderr must not come to be written to a file that is opened later.
        for _ in 0..3 {
            core::mem::forget(sys::open(c"/dev/null", sys::O_RDONLY, 0).ok()?);
        }
        let _ = sys::call(nr::SETSID, [0; 6]);
        let _ = sys::call(nr::CHDIR, [c"/".as_ptr() as usize, 0, 0, 0, 0, 0]);
        let _ = sys::call(nr::PRCTL, [PR_SET_NAME, name.as_ptr() as usize, 0, 0, 0, 0]);
        sys::call(nr::PIDFD_OPEN, [program as usize, 0, 0, 0, 0, 0]).ok()
    }
}

/// Whether the program has called exec: then its memory, which we keep, is nobody's.
fn has_become_another(program: u32) -> bool {
    const KCMP_VM: usize = 1;
    // SAFETY: takes no pointer.
    let differs = unsafe { sys::call(nr::KCMP, [sys::getpid() as usize, program as usize, KCMP_VM, 0, 0, 0]) };
    match differs {
        Ok(0) => false,
        Ok(_) => !is_zombie(program),
        // Where that may not be asked (it has another user by now), what it said itself has to do.
        Err(_) => trigger::wanted_to_exec(),
    }
}

/// Its first thread has ended, others go on.
fn is_zombie(program: u32) -> bool {
    let (mut path, mut text) = ([0u8; 32], [0u8; 512]);
    let stat = sys::read_file(sys::proc_path(&mut path, program, b"stat"), &mut text).unwrap_or(&[]);
    // After the name, which may hold anything, in parentheses.
    stat.rsplit(|byte| *byte == b')').next().is_some_and(|rest| rest.starts_with(b" Z"))
}
