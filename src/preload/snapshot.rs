//! Snapshot: stop the world, clone the process, let the world go on (see [`crate::clone`]). The child scans; see [`crate::child`].
//!
//! At the end of a program that has one thread there is nothing to let go on: the child shares the memory with it, which waits,
//! and reads it in place.
#![allow(unsafe_code)] // keeps the one job, waits for the child

use crate::child::Stopped;
use crate::emit::{self, Findings};
use crate::helper::{self, CLONE_VM, WCLONE};
use crate::kernel::Timers;
use crate::ledger::{self, Ledger};
use crate::settings::{self, Settings};
use crate::shims::{KEPT_REGISTERS, thread_pointer};
use crate::state::WANTED;
use crate::stop::{self, Crew, State};
use crate::taken_in::TakenIn;
use crate::{child, clone, fast, fatal, glance, regions, tls, userfaultfd};
use core::sync::atomic::{AtomicBool, Ordering::Relaxed, Ordering::Release};
use leakscan_engine::AddrRange;
use leakscan_engine::arena;
use leakscan_engine::scan::fold::Folds;
use leakscan_engine::sys::{self, Errno, nr};
use leakscan_report::Trigger;

/// The thread that asked for the scan: not stopped, since it is here.
#[derive(Clone, Copy)]
pub struct Caller {
    pub tid: u32,
    pub sp: usize,
    pub tls: usize,
    pub registers: [usize; KEPT_REGISTERS],
}

/// One snapshot in the making, shared with the helper, inherited by the child.
pub struct Job {
    pub trigger: Trigger,
    /// A handler of a fault, or of a signal that ends the program, makes the scan: what the program was at may be half done.
    pub is_amid: bool,
    pub crew: Crew,
    pub caller: Caller,
    pub pid: u32,
    /// Its number in /proc, which may be that of another pid namespace: for the child.
    pub known_as: u32,
    pub started_ns: u64,
    pub stop_us: u64,
    pub way: Way,
    /// The copy has all of the program's memory, also what the program keeps from its forks.
    pub is_whole: bool,
    /// Pages that the program had mapped.
    pub pages: usize,
    pub taken_in: Option<TakenIn>,
    /// There is memory that must not be in a copy, which has it read before the program goes on.
    pub keeps_out: bool,
    /// The helper's findings.
    pub child: isize,
    pub refused: i32,
    pub timers: Timers,
}

/// How the threads were stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// There is one thread.
    Alone,
    /// The same, and it had a look around by itself: see [`crate::glance`].
    Glance,
    Ptrace,
    Signal,
    /// Neither way is there: the other threads run on, and their stacks are taken whole.
    None,
}

impl Way {
    pub const fn word(self) -> &'static str {
        match self {
            Way::Alone => "alone",
            Way::Glance => "glance",
            Way::Ptrace => "ptrace",
            Way::Signal => "signal",
            Way::None => "none",
        }
    }
}

/// Where the job lies: kept from scan to scan, as one runs at a time.
struct Place(core::cell::UnsafeCell<Option<Job>>);
// SAFETY: only the thread that holds the trigger's BUSY flag uses it.
unsafe impl Sync for Place {}
static JOB: Place = Place(core::cell::UnsafeCell::new(None));

/// Takes a snapshot and gives its pid; the threads run again. `None` if none could be taken: the ledger says why. This thread had these
/// registers, and blocked the signals of `mask`.
pub fn take(trigger: Trigger, registers: &[usize; KEPT_REGISTERS], mask: u64) -> Option<u32> {
    if helper::HANGS.load(Relaxed) {
        fail(child::Step::Clone, Errno::EDEADLK);
        return None;
    }
    let threads = stop::count();
    let Some(job) = job_for(threads, trigger, registers, mask) else {
        no_memory();
        return None;
    };
    // Their values are to be had from outside of a thread that stands still for that.
    let waiting = sys::has_waiting_signals();
    let in_place = threads == 1 && trigger.is_end() && !waiting && can_read_in_place(job);
    if in_place && glance(job) {
        return None;
    }
    helper::UNLOOKED.store(0, Relaxed);
    // SAFETY: the caller holds BUSY, and no child is at work.
    let shared = unsafe { ledger::share() };
    let Some(shared) = shared else {
        no_memory();
        return None;
    };
    shared.ledger.pause_us.store(0, Relaxed);
    shared.ledger.over.store(0, Relaxed);
    shared.ledger.copied.store(0, Relaxed);
    shared.ledger.released.store(0, Relaxed);
    shared.ledger.went_on.store(0, Relaxed);
    shared.ledger.step.store(child::Step::Clone as u32, Relaxed);
    shared.ledger.errno.store(0, Relaxed);
    match children_are_elsewhere() {
        Ok(false) => {}
        Ok(true) => {
            fail(child::Step::Clone, Errno::ECHILD);
            return None;
        }
        Err(error) => {
            fail(child::Step::Maps, error);
            return None;
        }
    }
    let way = settings::get().map_or("auto", |settings| settings.options.stop);
    if threads == 1 {
        job.way = Way::Alone;
        if !(in_place && read_in_place(job)) {
            clone::prepare(job);
            clone::alone(job, in_place);
            job.pause_ended();
        }
    } else {
        let is_stopped = way != "signal" && clone::by_ptrace(job);
        // (Where that has taken all its time another way would take as much again; and where there is no room for a process.)
        let hopeless = [Errno::EDEADLK, Errno::ETIMEDOUT, Errno::EAGAIN, Errno::ENOMEM];
        if !is_stopped && way != "ptrace" && !hopeless.contains(&Errno(job.refused)) {
            clone::by_signal(job);
        }
    }
    if job.child <= 0 {
        fail(child::Step::Clone, Errno(if job.refused != 0 { job.refused } else { -job.child as i32 }));
        return None;
    }
    shared.ledger.went_on.store(1, Release);
    NAMED.store(waiting && clone::name_tracer(job.child as usize), Relaxed);
    u32::try_from(job.child).ok().filter(|child| *child != 0)
}

/// Whether the next child of this thread is in another pid namespace: the first one there is its init, with whose end it is over, and the
/// program could start no process any more. (Linux tells since 4.12.)
///
/// # Errors
/// There is no /proc, or not this process's: then there is no scan either.
pub fn children_are_elsewhere() -> Result<bool, Errno> {
    if sys::kernel_release().is_some_and(|release| release < (4, 12)) {
        return Ok(false);
    }
    let of = |path| sys::stat(path).map(|stat| stat.inode);
    let own = match of(c"/proc/thread-self/ns/pid") {
        // A kernel without such namespaces.
        Err(Errno::ENOENT) if of(c"/proc/thread-self/status").is_ok() => return Ok(false),
        own => own?,
    };
    // (It is not named before the first process is there.)
    Ok(of(c"/proc/thread-self/ns/pid_for_children") != Ok(own))
}

/// The place where all that a scan needs to know is gathered. `None` without memory.
fn job_for(
    threads: usize,
    trigger: Trigger,
    registers: &[usize; KEPT_REGISTERS],
    mask: u64,
) -> Option<&'static mut Job> {
    // SAFETY: the caller holds BUSY.
    let job = unsafe { &mut *JOB.0.get() };
    if job.as_ref().is_none_or(|job| threads != 1 && job.crew.room() < threads + 8) {
        let crew = if threads == 1 { Crew::alone() } else { Crew::new(threads)? };
        let taken_in = job.take().and_then(|before| before.taken_in);
        *job = Some(Job {
            trigger,
            is_amid: false,
            crew,
            caller: Caller { tid: 0, sp: 0, tls: 0, registers: [0; KEPT_REGISTERS] },
            pid: 0,
            known_as: 0,
            started_ns: 0,
            stop_us: 0,
            way: Way::Alone,
            is_whole: true,
            pages: 0,
            taken_in,
            keeps_out: false,
            child: 0,
            refused: 0,
            timers: Timers::NONE,
        });
    }
    let job = job.as_mut()?;
    job.trigger = trigger;
    job.is_amid = fatal::is_in_handler(mask);
    job.crew.clear();
    job.crew.cannot_list = threads != 1 && !stop::proc_is_ours(settings::PID.load(Relaxed));
    job.caller =
        Caller { tid: sys::gettid(), sp: registers[KEPT_REGISTERS - 1], tls: thread_pointer(), registers: *registers };
    (job.pid, job.child, job.refused, job.stop_us) = (settings::PID.load(Relaxed), 0, 0, 0);
    job.timers.note();
    job.started_ns = sys::clock_ns(sys::CLOCK_MONOTONIC);
    Some(job)
}

impl Job {
    pub fn all_stand_still(&self) -> bool {
        let stands = |thread: &stop::Captured| matches!(thread.state, State::Stopped | State::Gone);
        self.way != Way::None && self.crew.overflow == 0 && self.crew.found().iter().all(stands)
    }
    /// What the copy has not.
    pub fn kept_out(&self) -> impl Iterator<Item = AddrRange> {
        let taken_in = self.taken_in.as_ref().filter(|_| self.keeps_out && !is_in_place());
        taken_in.into_iter().flat_map(TakenIn::kept_out)
    }
    /// Ranges that the program keeps from its forks, and that forks have from now on.
    pub fn stuck(&self) -> usize {
        self.taken_in.as_ref().map_or(0, |all| all.stuck)
    }
    pub fn stopped(&mut self) {
        self.stop_us = (sys::clock_ns(sys::CLOCK_MONOTONIC) - self.started_ns) / 1000;
    }
    pub fn pause_ended(&self) {
        if let Some(shared) = ledger::get() {
            let pause = (sys::clock_ns(sys::CLOCK_MONOTONIC) - self.started_ns) / 1000;
            shared.ledger.pause_us.store(pause.max(1), Relaxed);
        }
    }
}

/// The child changes nothing of the program's: see [`copy_is_needed`] for what would have to be.
static IN_PLACE: AtomicBool = AtomicBool::new(false);
static NEEDS_COPY: AtomicBool = AtomicBool::new(false);

/// Whether the caller is a thread on its own stack, of which what lies below its stack pointer is known to be dead.
fn can_read_in_place(job: &Job) -> bool {
    let on_own_stack = tls::current().is_some_and(|thread| {
        let stack = thread.stack.get();
        (stack.low..stack.high).contains(&job.caller.sp)
    });
    on_own_stack && tls::moving().next().is_none() && userfaultfd::serves_no_fault()
}

/// Whether a glance shows that the last scan would find nothing. Then the report is written, if there is to be one.
fn glance(job: &mut Job) -> bool {
    let Some(settings) = settings::get().filter(|_| !ledger::exists()) else { return false };
    let (mapped, cpu_ns) = (arena::mark(), sys::clock_ns(sys::CLOCK_PROCESS_CPUTIME));
    let Some(stats) = glance::all_is_reached(job, settings) else {
        // SAFETY: what it has mapped is known to nobody else.
        unsafe { arena::release_since(mapped) };
        return false;
    };
    if job.trigger == Trigger::Exec {
        // The program goes on if there is nothing to become.
        // SAFETY: as above.
        unsafe { arena::release_since(mapped) };
        return true;
    }
    if !settings::is_root(settings) {
        return true;
    }
    // Where files may not grow without limit, to write one might end the program by SIGXFSZ: a child's task.
    let Some(shared) = sys::may_write_files().then(ledger::get_alone).flatten() else { return false };
    job.way = Way::Glance;
    job.pause_ended();
    let mut found = Findings::new(job, job.started_ns);
    (found.stats, found.cpu_ns) = (stats, cpu_ns);
    match emit::write(job, settings, &shared, found, Folds::default(), &[]) {
        Ok(()) => true,
        // Maybe for want of a descriptor: a child can do without one.
        Err(Stopped(child::Step::Open, _)) => false,
        Err(Stopped(step, error)) => {
            child::cut_back(settings, shared.ledger);
            note(settings, shared.ledger, step as u32, error.0 as u32);
            true
        }
    }
}

/// The scan by a child that shares our memory, while we wait. `false` if it takes a copy.
fn read_in_place(job: &mut Job) -> bool {
    IN_PLACE.store(true, Relaxed);
    let (mapped, bytes) = (arena::mark(), arena::own_bytes());
    clone::child(job, CLONE_VM | clone::CLONE_VFORK);
    IN_PLACE.store(false, Relaxed);
    // What little there is goes with the program, if that ends.
    if job.trigger != Trigger::Exit || arena::own_bytes() - bytes > 16 << 20 {
        // SAFETY: the child has ended, and what it has mapped is known to nobody else.
        unsafe { arena::release_since(mapped) };
    }
    let needs_copy = NEEDS_COPY.swap(false, Relaxed);
    if job.child > 0 && !needs_copy {
        return true;
    }
    if job.child > 0 {
        // SAFETY: no status is asked for.
        let _ = unsafe { sys::call(nr::WAIT4, [job.child as usize, 0, WCLONE, 0, 0, 0]) };
    }
    false
}

/// In a child that shares the program's memory, ends it: the scan is made anew in a copy, where memory may be changed. To be called
/// before anything is written.
pub fn copy_is_needed() {
    if IN_PLACE.load(Relaxed) {
        NEEDS_COPY.store(true, Relaxed);
        // SAFETY: ends this process.
        unsafe { sys::syscall(nr::EXIT_GROUP, [0; 6]) };
    }
}

/// Whether the child shares the program's memory.
pub fn is_in_place() -> bool {
    IN_PLACE.load(Relaxed)
}

/// A child has been named.
static NAMED: AtomicBool = AtomicBool::new(false);

/// There is no memory for what a scan needs in the program. The ledger may be what is missing.
pub fn no_memory() {
    static TOLD: AtomicBool = AtomicBool::new(false);
    let Some(settings) = settings::get() else { return };
    let (step, error) = (child::Step::Memory as u32, Errno::ENOMEM.0 as u32);
    match ledger::get() {
        Some(shared) => note(settings, shared.ledger, step, error),
        None if !settings.options.quiet && !TOLD.swap(true, Relaxed) => child::tell(settings, step, error),
        None => {}
    }
}

/// Notes that no snapshot could be taken.
fn fail(step: child::Step, error: Errno) {
    let (Some(shared), Some(settings)) = (ledger::get(), settings::get()) else { return };
    note(settings, shared.ledger, step as u32, error.0 as u32);
}

/// Counts a scan that failed, for the next report, and tells of the first one.
fn note(settings: &Settings, ledger: &Ledger, step: u32, error: u32) {
    ledger.failed.fetch_add(1, Relaxed);
    ledger.failed_step.store(step, Relaxed);
    ledger.failed_errno.store(error, Relaxed);
    if !settings.options.quiet && ledger.told.swap(1, Relaxed) == 0 {
        child::tell(settings, step, error);
    }
}

/// A child has ended with this wait status: the report is whole, or is cut back to what was whole before.
pub fn ended(status: i32) {
    if NAMED.swap(false, Relaxed) {
        clone::name_tracer(0);
    }
    let (Some(shared), Some(settings)) = (ledger::get(), settings::get()) else { return };
    let ledger = shared.ledger;
    if status == 0 || status == -1 && ledger.step.load(Relaxed) == child::Step::Done as u32 {
        ledger.failed.store(0, Relaxed);
        if ledger.keeps_from_forks.load(Relaxed) != 0 {
            regions::KEPT_FROM_FORKS.store(true, Relaxed);
        }
        if WANTED.add_all(&ledger.wanted) {
            fast::close_malloc();
        }
        return;
    }
    // Ended by a signal (its watchdog's is SIGALRM): told with a bit above the number.
    let error = if status & 0x7f != 0 { (status & 0x7f) as u32 | 1 << 16 } else { ledger.errno.load(Relaxed) };
    shared.written().fill(0);
    child::cut_back(settings, ledger);
    note(settings, ledger, ledger.step.load(Relaxed), error);
}
