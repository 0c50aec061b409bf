//! Helpers: processes that share the program's memory for a moment, and do for it what may end, or hold up, who does it: ptrace, a
//! clone, calls that a filter refuses by ending the caller. The program waits for them; none hangs for long.
#![allow(unsafe_code)] // clones the process

use crate::settings;
use crate::shims::clone_onto;
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering::Acquire, Ordering::Relaxed, Ordering::Release};
use leakscan_engine::arena;
use leakscan_engine::sys::{self, Errno, nr};

pub const CLONE_VM: usize = 0x100;
const CLONE_FS: usize = 0x200;
const CLONE_FILES: usize = 0x400;
const CLONE_UNTRACED: usize = 0x80_0000;
pub const WCLONE: usize = 0x8000_0000;
const WNOHANG: usize = 1;
const SIGKILL: usize = 9;
const STACK: usize = 256 << 10;
/// As many descriptors as are open at a time.
const ROOM: usize = 4;

/// Lowest address of the snapshot child's stack, which the helper's and that of the thread that scans follow; 0: not mapped yet.
static STACKS: AtomicUsize = AtomicUsize::new(0);

/// A clone hung: a thread of the program's own, which stood still, was to take note of it.
pub static HANGS: AtomicBool = AtomicBool::new(false);

/// How far the helper is; there is one at a time.
static GO: AtomicU32 = AtomicU32::new(WAITING);
const WAITING: u32 = 0;
const GOES_ON: u32 = 1;
const AT_ITS_END: u32 = 2;

/// Whether there are stacks, which are mapped now if need be.
pub fn map_stacks() -> bool {
    if STACKS.load(Relaxed) == 0
        && let Some(stacks) = arena::map(3 * STACK)
    {
        STACKS.store(stacks.start, Relaxed);
    }
    STACKS.load(Relaxed) != 0
}

pub fn top_of_childs_stack() -> usize {
    STACKS.load(Relaxed) + STACK
}

/// For the thread that makes a scan, whose own stack may be a small one for signals. `None` without memory.
pub fn top_of_callers_stack() -> Option<usize> {
    map_stacks().then(|| STACKS.load(Relaxed) + 3 * STACK)
}

/// What a helper is for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// It stops the program's threads, and clones: descriptors are the program's, which runs. It is to call [`wait_to_go_on`].
    Tracer,
    /// The threads stand still: its descriptors are its own, so that none is left open if it is ended.
    Task,
}

/// Starts a helper with this task. Gives its process.
///
/// # Errors
/// Why the kernel refuses it.
///
/// # Safety
/// The task uses no thread-local state and ends itself; `argument` is good until then.
pub unsafe fn start(task: extern "C" fn(usize) -> !, argument: usize, kind: Kind) -> Result<usize, Errno> {
    let (state, files) = if kind == Kind::Tracer { (WAITING, CLONE_FILES) } else { (GOES_ON, 0) };
    GO.store(state, Relaxed);
    let top = STACKS.load(Relaxed) + 2 * STACK;
    let flags = CLONE_VM | CLONE_FS | files | CLONE_UNTRACED;
    // SAFETY: the stack is ours and used by one helper at a time; the rest by this function's own contract.
    sys::check(unsafe { clone_onto(flags, top, task, argument) })
}

/// Called by a helper that waits. The program may be gone before it lets this process go on, which would keep all of its memory and
/// descriptors.
pub fn wait_to_go_on(program: u32) {
    const LOOK_NS: u64 = 50_000_000;
    while GO.load(Relaxed) == WAITING {
        sys::futex_wait(&GO, WAITING, Some(LOOK_NS));
        if sys::getppid() != program {
            exit();
        }
    }
}

/// Lets one that waits go on. (Another may be over already.)
pub fn let_go_on() {
    let _ = GO.compare_exchange(WAITING, GOES_ON, Relaxed, Relaxed);
    sys::futex_wake(&GO, 1);
}

/// A helper's end, in the program's process.
pub fn ends() -> ! {
    GO.store(AT_ITS_END, Release);
    sys::futex_wake(&GO, 1);
    exit()
}

/// A helper's end, in the snapshot child.
pub fn exit() -> ! {
    loop {
        // SAFETY: ends this process.
        unsafe { sys::syscall(nr::EXIT, [0; 6]) };
    }
}

/// Takes note of a helper's end; `how`: WNOHANG, not to wait for it.
fn reap(helper: usize, how: usize) -> Result<usize, Errno> {
    // SAFETY: no status is asked for.
    unsafe { sys::call(nr::WAIT4, [helper, 0, WCLONE | how, 0, 0, 0]) }
}

fn kill(helper: usize) {
    // SAFETY: ends the helper, whose end lets go of whom it traces.
    let _ = unsafe { sys::call(nr::KILL, [helper, SIGKILL, 0, 0, 0, 0]) };
}

/// Waits until a helper has ended. One that hangs is ended: false.
pub fn wait(helper: usize) -> bool {
    const LOOK_NS: u64 = 20_000_000;
    const OFTEN_NS: u64 = 200_000_000;
    /// For one that sleeps, nobody can tell where.
    const UNTOLD_NS: u64 = 10_000_000_000;
    let deadline = settings::get().map_or(0, |settings| settings.options.deadline) * 1_000_000_000;
    let started = sys::clock_ns(sys::CLOCK_MONOTONIC);
    let (mut patience, mut known, mut in_time) = (1_000_000_000, 0, true);
    while GO.load(Acquire) != AT_ITS_END {
        sys::futex_wait(&GO, GOES_ON, Some(LOOK_NS));
        if !matches!(reap(helper, WNOHANG), Ok(0) | Err(Errno::EINTR)) {
            return in_time;
        }
        let waited = sys::clock_ns(sys::CLOCK_MONOTONIC) - started;
        if waited > patience {
            patience += OFTEN_NS;
            let waits = waits_for_userfaultfd(helper);
            known = if waits.is_some() { waited } else { known };
            let hangs = waits.unwrap_or(waited - known > UNTOLD_NS);
            HANGS.fetch_or(hangs, Relaxed);
            if hangs || waited > deadline {
                in_time = false;
                kill(helper);
            }
        }
    }
    while reap(helper, 0) == Err(Errno::EINTR) {}
    in_time
}

/// Whether a process waits for somebody to take note of its clone (UFFD_FEATURE_EVENT_FORK). `None`: it waits, but the kernel does not
/// say what for, or there is no descriptor to ask by.
fn waits_for_userfaultfd(process: usize) -> Option<bool> {
    let (mut path, mut text) = ([0; 40], [0; 512]);
    let mut read = |name: &[u8]| -> Option<[u8; 64]> {
        let found = sys::read_file(sys::proc_path(&mut path, process as u32, name), &mut text).ok()?;
        // `number (name) state ...`: the name may hold anything but ends at the last parenthesis.
        let found = found.iter().rposition(|&byte| byte == b')').map_or(found, |at| &found[at..]);
        let mut start = [0; 64];
        let len = found.len().min(start.len());
        start[..len].copy_from_slice(&found[..len]);
        Some(start)
    };
    let place = read(b"wchan")?;
    // (What it may not tell it calls 0, as it does of who runs.)
    if !matches!(place[0], 0 | b'0') {
        return Some(place.starts_with(b"userfaultfd"));
    }
    read(b"stat")?.starts_with(b") R").then_some(false)
}

/// In the snapshot child: lets a helper of its own do something, for no longer than `until`.
///
/// # Safety
/// As for [`start`].
pub unsafe fn with_deadline(task: extern "C" fn(usize) -> !, argument: usize, until: u64) {
    // SAFETY: in this copy of the program nobody else uses the helper's stack; the rest by this function's own contract.
    let Ok(helper) = (unsafe { start(task, argument, Kind::Task) }) else { return };
    while matches!(reap(helper, WNOHANG), Ok(0) | Err(Errno::EINTR)) {
        sys::sleep_ns(50_000);
        if sys::clock_ns(sys::CLOCK_MONOTONIC) > until {
            kill(helper);
        }
    }
}

/// Whether a helper that a filter ends, as it traces, takes the program with it: before Linux 5.16 whatever ends with a core ended all that
/// share its memory.
pub fn ends_all_of_us() -> bool {
    sys::kernel_release().is_none_or(|release| release < (5, 16))
}

/// Sees to it that this process, which is a helper or a snapshot child, can open [`ROOM`] files at a time. Gives whether it could not before.
pub fn spare_if_full() -> bool {
    let is_full = open_some().is_err_and(|error| error == Errno::EMFILE);
    if is_full {
        spare_descriptors();
    }
    is_full
}

fn open_some() -> Result<[sys::Fd; ROOM - 1], Errno> {
    let one = sys::open(c"/proc/self", sys::O_RDONLY, 0)?;
    Ok([one.again()?, one.again()?, one.again()?])
}

/// Descriptors that were closed in the copy, to have room for others, though they may have held something.
pub static UNLOOKED: AtomicUsize = AtomicUsize::new(0);

/// The program has used up its descriptors: a table of this process's own, in which there is room for [`ROOM`] files
/// when the others are looked at. Where this process may not have more than the program, some are closed, those first that hold nothing.
pub fn spare_descriptors() {
    // SAFETY: parts this process's table from the program's.
    if unsafe { sys::call(nr::UNSHARE, [CLONE_FILES, 0, 0, 0, 0, 0]) }.is_err() {
        return;
    }
    let left = ROOM.saturating_sub(sys::lift_descriptor_limit());
    // SAFETY: what is closed is this process's own copy, which nobody uses.
    let close = |descriptor: &usize| unsafe { sys::call(nr::CLOSE, [*descriptor, 0, 0, 0, 0, 0]) }.is_ok();
    let all = 0..sys::most_descriptors();
    let closed =
        all.clone().filter(|descriptor| sys::holds_nothing(*descriptor) && close(descriptor)).take(left).count();
    UNLOOKED.fetch_add(all.filter(close).take(left - closed).count(), Relaxed);
}
