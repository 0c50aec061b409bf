//! When a scan runs: the clock on the allocation path, a signal, the program's own call, its end. One at a time.
#![allow(unsafe_code)] // hands registers to the snapshot; signal masks

use crate::settings::Settings;
use crate::shims::{KEPT_REGISTERS, with_registers};
use crate::state::TRACKER;
use crate::{helper, ledger, misuse, real, sandbox, settings, snapshot, tls};
use core::sync::atomic::{
    AtomicBool, AtomicU32, AtomicU64, Ordering::AcqRel, Ordering::Acquire, Ordering::Relaxed, Ordering::Release,
    Ordering::SeqCst,
};
use leakscan_engine::sys::{self, nr};
use leakscan_report::Trigger;

/// Allocations of a thread between two looks at the clock.
pub const TICKS: u32 = 1024;

/// A thread is at work here.
static BUSY: AtomicBool = AtomicBool::new(false);
/// The running snapshot child; 0: none.
static CHILD: AtomicU32 = AtomicU32::new(0);
/// When the next scan by the clock is due, in nanoseconds of the monotonic clock.
static DUE: AtomicU64 = AtomicU64::new(u64::MAX);
/// A scan was asked for while one was running.
static PENDING: AtomicBool = AtomicBool::new(false);
static LAST: AtomicBool = AtomicBool::new(false);

/// Starts the clock. Called by the constructor, and in the child of a fork, where no scan is running.
pub fn start() {
    BUSY.store(false, Relaxed);
    CHILD.store(0, Relaxed);
    PENDING.store(false, Relaxed);
    set_due();
}

fn set_due() {
    let interval = settings::get().map_or(0, |settings| settings.options.interval);
    let due = match interval {
        0 => u64::MAX,
        _ => sys::clock_ns(sys::CLOCK_MONOTONIC).saturating_add(interval.saturating_mul(1_000_000_000)),
    };
    DUE.store(due, Relaxed);
}

/// The thread has counted its ticks down.
#[cold]
#[inline(never)]
pub fn tick_of(thread: &tls::Thread) {
    thread.ticks.set(TICKS);
    tick();
}

/// Called on the allocation path every [`TICKS`] calls of a thread.
fn tick() {
    let due = DUE.load(Relaxed);
    let running = CHILD.load(Relaxed) != 0;
    if due == u64::MAX && !running && !PENDING.load(Relaxed) {
        return;
    }
    if PENDING.load(Relaxed) && !running || sys::clock_ns(sys::CLOCK_MONOTONIC) >= due {
        let trigger = if PENDING.swap(false, Relaxed) { Trigger::Signal } else { Trigger::Interval };
        request(trigger);
    } else if running {
        collect();
    }
}

/// Collects a child that has ended, if nobody is at it.
fn collect() {
    let Some(_inside) = sandbox::enter() else { return };
    // A signal that ends the program asks for the last scan on this thread, which would wait for itself.
    let mask = block_signals();
    if settings::PID.load(Relaxed) == sys::getpid() && !BUSY.swap(true, AcqRel) {
        on_own_stack(|_| reap(false));
        BUSY.store(false, Release);
    }
    restore_signals(mask);
}

/// Clears the stack where our own frames will lie, which are above the stack pointer of the scan: what the program has left there is no root.
#[inline(never)]
fn clear_room() {
    let mut room = [0u64; 64];
    core::hint::black_box(&mut room);
}

/// Scans now. At the program's end and for its own call this waits until the report is written; otherwise it returns when the
/// threads go on. Gives whether a scan was made.
pub fn request(trigger: Trigger) -> bool {
    clear_room();
    request_in_clear_room(trigger)
}

#[inline(never)]
fn request_in_clear_room(trigger: Trigger) -> bool {
    let (Some(settings), Some(_inside)) = (settings::get(), sandbox::enter()) else { return false };
    // The child of a vfork, or of a clone that shares our memory, is not the process that we watch.
    if settings::PID.load(Relaxed) != sys::getpid() || LAST.load(Relaxed) {
        return false;
    }
    let waits =
        trigger.is_end() || matches!(trigger, Trigger::Api | Trigger::Misuse | Trigger::Seccomp | Trigger::Chroot);
    // A handler of the program's must not run in the midst of it, and could not be let in by the child either.
    let mask = block_signals();
    let mut made = false;
    if hold(settings, waits) {
        made = on_own_stack(|registers| at_work(trigger, waits, registers, mask)).unwrap_or_else(|| {
            snapshot::no_memory();
            false
        });
        set_due();
        BUSY.store(false, Release);
    } else if trigger == Trigger::Signal {
        PENDING.store(true, SeqCst);
    }
    // Asked for by a signal while this thread was at work here.
    if PENDING.load(SeqCst) && !BUSY.load(SeqCst) && PENDING.swap(false, SeqCst) {
        made |= request(Trigger::Signal);
    }
    restore_signals(mask);
    made
}

/// What [`request`] does where nobody else is at it.
fn at_work(trigger: Trigger, waits: bool, registers: &Registers, mask: u64) -> bool {
    reap(waits);
    if CHILD.load(Relaxed) != 0 && trigger == Trigger::Signal {
        // Still at it: not doubled. This one comes behind it, when the child asks for it again; or now, if the child only has to end.
        defer();
    }
    if CHILD.load(Relaxed) != 0 {
        return false;
    }
    let made = scan(trigger, registers, mask);
    if waits {
        reap(true);
        return made && ledger::get().is_some_and(|shared| shared.ledger.failed.load(Relaxed) == 0);
    }
    made
}

type Registers = [usize; KEPT_REGISTERS];

/// Does something on a stack of ours, with the registers that this thread has: its own stack may be one for signals, of 8 KiB. For who holds
/// [`BUSY`], with no signal let in. `None` without memory.
fn on_own_stack<T>(task: impl FnOnce(&Registers) -> T) -> Option<T> {
    struct Call<F, T> {
        task: Option<F>,
        done: Option<T>,
    }
    unsafe extern "C" fn enter<F: FnOnce(&Registers) -> T, T>(call: usize, registers: *const usize) {
        // SAFETY: from below, and from `with_registers`.
        let (call, registers) = unsafe { (&mut *(call as *mut Call<F, T>), &*registers.cast::<Registers>()) };
        call.done = call.task.take().map(|task| task(registers));
    }
    fn call<F: FnOnce(&Registers) -> T, T>(task: F, stack_top: usize) -> Option<T> {
        let mut call = Call { task: Some(task), done: None };
        // SAFETY: `enter` gets the address of `call`, which outlives it; who holds `BUSY` has the stack.
        unsafe { with_registers(&raw mut call as usize, enter::<F, T>, stack_top) };
        call.done
    }
    call(task, helper::top_of_callers_stack()?)
}

/// Takes [`BUSY`]. Gives whether it could, within the deadline if it `waits`.
fn hold(settings: &Settings, waits: bool) -> bool {
    let started = sys::clock_ns(sys::CLOCK_MONOTONIC);
    let mut held = !BUSY.swap(true, AcqRel);
    while !held && waits && sys::clock_ns(sys::CLOCK_MONOTONIC) - started < settings.options.deadline * 1_000_000_000 {
        sys::sleep_ns(200_000);
        held = !BUSY.swap(true, AcqRel);
    }
    held
}

/// Does something beside which no scan may be at work, with no signal let in. `None`: one is at work for too long, or there is no memory.
pub fn alone<T>(task: impl FnOnce() -> T) -> Option<T> {
    let settings = settings::get()?;
    let mask = block_signals();
    let mut done = None;
    if hold(settings, true) {
        done = on_own_stack(|_| {
            reap(true);
            task()
        });
        BUSY.store(false, Release);
    }
    restore_signals(mask);
    done
}

fn defer() {
    let Some(shared) = ledger::get() else { return };
    shared.ledger.pending.store(1, SeqCst);
    if shared.ledger.over.load(SeqCst) != 0 {
        reap(true);
    }
}

/// The last scan: after it no other is made. For the end of the process, whichever way it is found out first.
pub fn last() {
    maybe_last();
    if let Some(_inside) = sandbox::enter()
        && settings::PID.load(Relaxed) == sys::getpid()
    {
        LAST.store(true, Relaxed);
    }
}

/// The same, where the process may go on after all.
pub fn maybe_last() {
    at_end(Trigger::Exit);
}

fn at_end(trigger: Trigger) {
    if let Some(settings) = settings::get()
        && let Some(_inside) = sandbox::enter()
        && settings.options.scan_at_exit
        && !nothing_was_ever_there(settings)
    {
        request(trigger);
    }
}

/// The program is about to become another one, if that can be started: what it has lost is gone with it. Not in a child that was forked,
/// mostly for that.
pub extern "C" fn before_exec() {
    real::ready();
    if !settings::FORKED.load(Relaxed) {
        at_end(Trigger::Exec);
    }
}

/// The same, where the file is given by its path. A program may try one place after the other.
pub extern "C" fn before_exec_of(path: *const core::ffi::c_char) {
    const AT_FDCWD: usize = -100isize as usize;
    const X_OK: usize = 1;
    real::ready();
    let inside = sandbox::enter();
    // SAFETY: the kernel reads the path, as it is about to do.
    if inside.is_some() && unsafe { sys::call(nr::FACCESSAT, [AT_FDCWD, path as usize, X_OK, 0, 0, 0]) }.is_ok() {
        before_exec();
    }
}

/// A filter is about to come that would end the program for what a scan asks of the kernel.
pub fn before_filter() {
    at_end(Trigger::Seccomp);
}

/// The root directory is about to change, if that can be. In the new one there may be no /proc, without which there is no scan. Once, and not
/// in a child that was forked (a server's, for each connection), but for a daemon.
pub fn before_chroot(path: usize) {
    const AT_FDCWD: usize = -100isize as usize;
    const X_OK: usize = 1;
    static WAS: AtomicBool = AtomicBool::new(false);
    let Some(_inside) = sandbox::enter() else { return };
    let is_child = settings::FORKED.load(Relaxed) && sys::getppid() != 1;
    // (The child of a vfork has our memory: not even the note is its own.)
    let is_ours = settings::PID.load(Relaxed) == sys::getpid() && !is_child;
    // SAFETY: the kernel reads the path, as it is about to do.
    let is_there = || unsafe { sys::call(nr::FACCESSAT, [AT_FDCWD, path, X_OK, 0, 0, 0]) }.is_ok();
    // (Nobody but root may change it.)
    if is_ours && sys::geteuid() == 0 && is_there() && !WAS.swap(true, Relaxed) {
        at_end(Trigger::Chroot);
    }
}

/// Whether this process has allocated nothing, was never scanned, and would leave no report without a leak.
fn nothing_was_ever_there(settings: &Settings) -> bool {
    TRACKER.live.leaves().next().is_none()
        && !ledger::exists()
        && misuse::all().next().is_none()
        && !settings::is_root(settings)
}

fn scan(trigger: Trigger, registers: &Registers, mask: u64) -> bool {
    if ledger::exists()
        && let Some(shared) = ledger::get()
    {
        shared.ledger.pending.store(0, Relaxed);
    }
    let child = snapshot::take(trigger, registers, mask);
    if let Some(child) = child {
        CHILD.store(child, Relaxed);
    }
    child.is_some()
}

const WNOHANG: usize = 1;
const WCLONE: usize = 0x8000_0000;

/// Takes note of a child's end. Its own watchdog ends it at the deadline, so waiting has an end.
fn reap(wait: bool) {
    let child = CHILD.load(Acquire);
    if child == 0 {
        return;
    }
    let mut status = 0i32;
    let flags = WCLONE | if wait { 0 } else { WNOHANG };
    loop {
        // SAFETY: the kernel writes one word to `status`.
        match unsafe { sys::call(nr::WAIT4, [child as usize, &raw mut status as usize, flags, 0, 0, 0]) } {
            Ok(0) => return,
            Err(sys::Errno::EINTR) => {}
            Ok(_) => break,
            // Somebody else's wait has taken it (__WALL): its words in the ledger tell.
            Err(_) => {
                status = -1;
                break;
            }
        }
    }
    CHILD.store(0, Release);
    snapshot::ended(status);
}

pub fn block_signals() -> u64 {
    let (all, mut old) = (u64::MAX, 0u64);
    // SAFETY: SIG_SETMASK (2) with masks of 8 bytes: the kernel reads `all` and writes `old`.
    let _ = unsafe { sys::call(nr::RT_SIGPROCMASK, [2, &raw const all as usize, &raw mut old as usize, 8, 0, 0]) };
    old
}

pub fn restore_signals(mask: u64) {
    // SAFETY: as above; nothing is written.
    let _ = unsafe { sys::call(nr::RT_SIGPROCMASK, [2, &raw const mask as usize, 0, 8, 0, 0]) };
}
