//! Filters that the program puts on its own system calls (seccomp): where one would end it for what we ask of the kernel, there is a scan
//! before it comes, and nothing after: no scan, and no block is tracked any more, as our tables cannot grow.
//!
//! A filter that was there when the program began is not known. (Services and containers have such: they refuse, or end who traces,
//! which a helper does.) Nor is one by a system call of the program's own, or of a child of vfork.
#![allow(unsafe_code)] // reads the filter that the program gives to the kernel

use crate::{bundled, fatal, helper, real, settings, state, stop, threads, trigger};
use core::ffi::{c_int, c_long};
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed, Ordering::SeqCst};
use leakscan_engine::arena;
use leakscan_engine::seccomp::{Call, Instruction, LONGEST, asks, ends, refuses};
use leakscan_engine::sys::{self, nr};

/// There is such a filter, or there will be in a moment: no scan, and no system call of ours that the program would not make without us.
static CLOSED: AtomicBool = AtomicBool::new(false);

pub fn is_closed() -> bool {
    CLOSED.load(SeqCst)
}

/// How many threads are at what a filter may end them for.
static INSIDE: AtomicU32 = AtomicU32::new(0);

/// Leave to ask the kernel for something, while it is held.
pub struct Inside(());

/// `None`: it is closed.
pub fn enter() -> Option<Inside> {
    INSIDE.fetch_add(1, SeqCst);
    let inside = Inside(());
    (!is_closed()).then_some(inside)
}

impl Drop for Inside {
    fn drop(&mut self) {
        INSIDE.fetch_sub(1, SeqCst);
    }
}

/// In the child of a fork there is one thread, which is not. Nor has it a filter that another thread was about to put on itself.
pub fn forked() {
    INSIDE.store(0, Relaxed);
    ASKING.store(0, Relaxed);
    if COMING.load(Relaxed) == FOR_ONE && !ON.load(Relaxed) {
        open_again();
    }
}

/// How many threads are about to put on a filter.
static ASKING: AtomicU32 = AtomicU32::new(0);
/// One is on.
static ON: AtomicBool = AtomicBool::new(false);
/// They do it each for itself, or one for all.
static COMING: AtomicU32 = AtomicU32::new(0);
const FOR_ONE: u32 = 1;
const FOR_ALL: u32 = 2;
/// Signals that end the program came to us first.
static WATCHED: AtomicBool = AtomicBool::new(false);

fn open_again() {
    COMING.store(0, Relaxed);
    arena::close(false);
    CLOSED.store(false, SeqCst);
    if WATCHED.load(Relaxed) {
        fatal::come_again();
    }
}

/// Waits until nobody is, but not for ever: a thread may have been ended there.
fn wait_for_others() {
    const TRIES: u32 = 20_000;
    for _ in 0..TRIES {
        if INSIDE.load(SeqCst) == 0 {
            return;
        }
        sys::sleep_ns(200_000);
    }
}

const PR_SET_SECCOMP: c_int = 22;
const STRICT: usize = 1;
const FILTER: usize = 2;

/// prctl: the program's, where it may put on a filter.
pub extern "C" fn prctl(option: c_int, a: usize, b: usize, c: usize, d: usize) -> c_int {
    let put = || real::prctl(option, a, b, c, d);
    if option == PR_SET_SECCOMP && closes_by_prctl(a, b) {
        close_for(FOR_ONE, put, |result| *result == 0)
    } else {
        put()
    }
}

/// The same for a system call by number, of which these are the first arguments.
pub fn around_call(number: c_long, [a, b, c]: [usize; 3], put: impl FnOnce() -> c_long) -> c_long {
    let closes = match number as usize {
        nr::PRCTL => a == PR_SET_SECCOMP as usize && closes_by_prctl(b, c),
        // Its operations are one less than prctl's modes. It takes strict mode without more; who asks otherwise wants to know what there is.
        nr::SECCOMP => a + 1 == STRICT && (b, c) == (0, 0) || a + 1 == FILTER && closes(c),
        _ => false,
    };
    // Where a descriptor was asked for it comes back. (SECCOMP_FILTER_FLAG_NEW_LISTENER; or the number of a thread that cannot have the filter.)
    let gives_descriptor = number as usize == nr::SECCOMP && b & 8 != 0;
    let whose = if number as usize == nr::SECCOMP && b & 1 != 0 { FOR_ALL } else { FOR_ONE };
    if closes { close_for(whose, put, |result| *result == 0 || gives_descriptor && *result > 0) } else { put() }
}

fn closes_by_prctl(mode: usize, filter: usize) -> bool {
    mode == STRICT || mode == FILTER && closes(filter)
}

/// Puts on a filter by `put`, which has been put on if `is_on` says so. (In a child of vfork, whose memory is its parent's, nothing else.)
fn close_for<T>(whose: u32, put: impl FnOnce() -> T, is_on: impl FnOnce(&T) -> bool) -> T {
    let is_watched = settings::PID.load(Relaxed) == sys::getpid();
    if ON.load(SeqCst) || !is_watched && shares_memory() {
        return put();
    }
    trigger::before_filter();
    let mask = trigger::block_signals();
    turn(|| {
        ASKING.fetch_add(1, SeqCst);
        COMING.fetch_max(whose, SeqCst);
        CLOSED.store(true, SeqCst);
    });
    // (In a child by a bare system call there is one thread, and memory as that system call has found it.)
    if is_watched {
        wait_for_others();
        stop::signal::wait_for_returns(sys::getpid());
    }
    bundled::begin_below();
    // What ends the program from here on is not to come to us first, nor what still waits for a thread that blocks it.
    WATCHED.fetch_or(fatal::leave(), SeqCst);
    stop::signal::forget_waiting();
    // (Before it: it may be for all threads.)
    arena::close(true);
    trigger::restore_signals(mask);
    let result = put();
    if is_on(&result) {
        ON.store(true, SeqCst);
        state::close();
        // What the program becomes, or starts, has the filter, too.
        settings::leave_environment_late();
        return result;
    }
    // None of this thread's. What another one has closed for its own stays closed; so does all where a handler has jumped out of the call.
    if !ON.load(SeqCst) {
        let mask = trigger::block_signals();
        turn(|| {
            if ASKING.fetch_sub(1, SeqCst) == 1 && !ON.load(SeqCst) {
                open_again();
            }
        });
        trigger::restore_signals(mask);
    }
    result
}

/// Does something short that no other thread does meanwhile. With all signals blocked; waits without a system call, as a filter may be for all
/// threads; not for ever, as in a copy of the process there may be nobody who ends it.
fn turn(task: impl FnOnce()) {
    static TAKEN: AtomicBool = AtomicBool::new(false);
    const TRIES: u32 = 1 << 24;
    let _ = (0..TRIES).any(|_| {
        core::hint::spin_loop();
        !TAKEN.swap(true, SeqCst)
    });
    task();
    TAKEN.store(false, SeqCst);
}

/// Whether this process, which is not the one that we watch, has the same memory.
fn shares_memory() -> bool {
    const KCMP_VM: usize = 1;
    let watched = settings::PID.load(Relaxed);
    // SAFETY: compares, and takes no pointer.
    let compared = unsafe { sys::call(nr::KCMP, [watched as usize, sys::getpid() as usize, KCMP_VM, 0, 0, 0]) };
    // Where the kernel does not say: the thread that has called vfork, whose control block this one has, too, waits as it never does else.
    compared.map_or_else(|_| stop::waits_undisturbed(watched, threads::own_tid()), |order| order == 0)
}

/// Of `struct sock_fprog`, whose first word is the number of instructions. (Where one is on it might end who looks.)
fn closes(program: usize) -> bool {
    if ON.load(SeqCst) {
        return false;
    }
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
    // A supervisor may be a thread of the program's, which stands still for a scan.
    let ours = || calls().chain(of_children());
    calls().any(|call| ends(filter, &call))
        || ours().any(|call| asks(filter, &call))
        || leaves_children(filter)
        || helper::ends_all_of_us() && of_children().any(|call| ends(filter, &call))
}

/// Whether there is a filter on this process's system calls (seccomp), or nobody can tell.
pub fn has_filter() -> bool {
    let mut found = false;
    let told = sys::each_line(c"/proc/self/status", &mut [0; 2048], |line| {
        found |= line.strip_prefix(b"Seccomp:\t").is_some_and(|mode| mode != b"0");
    });
    found || told.is_err()
}

/// Whether nobody may wait for children: each of ours would stay.
fn leaves_children(filter: &[Instruction]) -> bool {
    refuses(filter, &Call { number: nr::WAIT4 as u32, ..Call::default() })
}

/// What is called by threads of the program itself, not by helpers and the snapshot child, whose end it survives.
fn calls() -> impl Iterator<Item = Call> {
    const CLONE_VM: u64 = 0x100;
    const CLONE_VFORK: u64 = 0x4000;
    const OF_A_HELPER: u64 = CLONE_VM | 0x200 | 0x400 | 0x80_0000;
    const PR_SET_PTRACER: u64 = 0x5961_6d61;
    const PR_GET_DUMPABLE: u64 = 3;
    const READ_AND_WRITE: u64 = 3;
    const NORESERVE: u64 = 0x4020;
    const FOR_READING: u64 = sys::O_CLOEXEC as u64;
    const FOR_WRITING: u64 = (sys::O_WRONLY | sys::O_CREAT | sys::O_APPEND | sys::O_NOFOLLOW | sys::O_CLOEXEC) as u64;
    const HERE: u64 = -100i64 as u64;
    const PLAIN: &[usize] = &[
        nr::READ,
        nr::WRITE,
        nr::CLOSE,
        nr::FSTAT,
        nr::NEWFSTATAT,
        nr::STATX,
        nr::UNAME,
        nr::MUNMAP,
        nr::MINCORE,
        nr::RT_SIGACTION,
        nr::RT_SIGPROCMASK,
        nr::RT_SIGPENDING,
        nr::RT_SIGTIMEDWAIT,
        nr::RT_SIGRETURN,
        // Which a thread that sleeps makes when it was stopped.
        nr::RESTART_SYSCALL,
        nr::NANOSLEEP,
        nr::GETPID,
        nr::GETPPID,
        nr::GETTID,
        nr::GETEUID,
        nr::GETRESUID,
        nr::WAIT4,
        nr::FUTEX,
        nr::GETDENTS64,
        nr::CLOCK_GETTIME,
        nr::TGKILL,
        nr::IOCTL,
        nr::PREAD64,
        nr::FACCESSAT,
        nr::READLINKAT,
        nr::FTRUNCATE,
        nr::RENAMEAT,
        nr::PRLIMIT64,
        nr::MADVISE,
        nr::MPROTECT,
        nr::MMAP,
        #[cfg(target_arch = "x86_64")]
        nr::ARCH_PRCTL,
    ];
    let with = |number: usize, args| Call { number: number as u32, args };
    let special = [
        with(nr::MMAP, [0, 4096, 0, NORESERVE | sys::MAP_PRIVATE as u64, u64::MAX, 0]),
        with(nr::MMAP, [0, 4096, READ_AND_WRITE, NORESERVE | sys::MAP_PRIVATE as u64, u64::MAX, 0]),
        with(nr::MMAP, [0, 4096, READ_AND_WRITE, NORESERVE | sys::MAP_SHARED as u64, u64::MAX, 0]),
        with(nr::MPROTECT, [0, 4096, READ_AND_WRITE, 0, 0, 0]),
        with(nr::OPENAT, [HERE, 0, FOR_READING, 0, 0, 0]),
        with(nr::OPENAT, [HERE, 0, FOR_WRITING, 0o600, 0, 0]),
        with(nr::PRCTL, [PR_SET_PTRACER, 0, 0, 0, 0, 0]),
        with(nr::PRCTL, [PR_GET_DUMPABLE, 0, 0, 0, 0, 0]),
        with(nr::CLONE, [0; 6]),
        with(nr::CLONE, [CLONE_VM | CLONE_VFORK, 0, 0, 0, 0, 0]),
        with(nr::CLONE, [OF_A_HELPER, 0, 0, 0, 0, 0]),
    ];
    // MADV_DONTNEED, _HUGEPAGE, _NOHUGEPAGE, _POPULATE_WRITE.
    let advice = [4, 14, 15, 23].map(|advice| with(nr::MADVISE, [0, 4096, advice, 0, 0, 0]));
    PLAIN.iter().map(|&number| Call { number: number as u32, ..Call::default() }).chain(special).chain(advice)
}

/// What is called by the others alone.
fn of_children() -> impl Iterator<Item = Call> {
    const PLAIN: [usize; 17] = [
        nr::PTRACE,
        nr::PROCESS_VM_READV,
        nr::UNSHARE,
        nr::CLOSE_RANGE,
        nr::SETITIMER,
        nr::SETRLIMIT,
        nr::TEE,
        nr::PIPE2,
        nr::PPOLL,
        nr::FCNTL,
        nr::RECVFROM,
        nr::GETSOCKOPT,
        nr::KILL,
        nr::EXIT,
        nr::EXIT_GROUP,
        nr::FCHOWN,
        nr::SETRESUID,
    ];
    const PR_SET_DUMPABLE: u64 = 4;
    let special = Call { number: nr::PRCTL as u32, args: [PR_SET_DUMPABLE, 1, 0, 0, 0, 0] };
    PLAIN.into_iter().map(|number| Call { number: number as u32, ..Call::default() }).chain([special])
}
