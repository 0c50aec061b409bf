//! The clone: the program's threads are stopped, and the copy is made, mostly by a helper.
//!
//! It is a raw one: no atfork handler runs, and its exit signal is 0, so that the program's wait() and SIGCHLD never see it (but for a wait
//! with __WALL or __WCLONE).
#![allow(unsafe_code)] // clones the process

use crate::helper::{self, CLONE_VM, Kind};
use crate::shims::clone_onto;
use crate::snapshot::{Job, Way, is_in_place};
use crate::state::TRACKER;
use crate::stop;
use crate::taken_in::{self, TakenIn};
use crate::userfaultfd::{self, Userfaultfds};
use crate::{ledger, regions, sandbox};
use core::sync::atomic::{AtomicU32, Ordering::Acquire, Ordering::Relaxed, Ordering::Release};
use leakscan_engine::sys::{self, Errno, nr};

/// How often ptrace was refused.
static REFUSED: AtomicU32 = AtomicU32::new(0);

pub const CLONE_VFORK: usize = 0x4000;
const CLONE_PARENT: usize = 0x8000;

/// Finds out whether a copy is to have other memory than a fork's. For when the threads stand still, or there is one.
pub fn prepare(job: &mut Job) {
    job.keeps_out = taken_in::has_pages_of_pool().unwrap_or(true);
    if (job.keeps_out || regions::KEPT_FROM_FORKS.load(Relaxed)) && job.taken_in.is_none() {
        job.taken_in = TakenIn::new();
    }
}

/// The clone itself. The child begins on a stack of ours: the caller's may be a coroutine's, small, and full of roots.
pub fn child(job: &mut Job, flags: usize) {
    let top = helper::top_of_childs_stack();
    let is_copy = flags & CLONE_VM == 0;
    let takes_in = is_copy && take_in(job);
    if is_copy && job.keeps_out && !job.taken_in.as_ref().is_some_and(|all| all.is_safe) {
        leave_out(job);
        job.child = -(Errno::EBUSY.0 as isize);
        return;
    }
    job.pages = if is_copy { taken_in::mapped_pages() } else { 0 };
    job.is_whole = takes_in || !is_copy || !regions::KEPT_FROM_FORKS.load(Relaxed);
    // SAFETY: the child has its stack for itself, and a copy of everything, or the caller stands still until it has ended.
    let clone = |job: &mut Job| unsafe { clone_onto(flags, top, snapshot, &raw mut *job as usize) };
    job.child = clone(job);
    if is_copy {
        leave_out(job);
    }
    if job.child < 0 && takes_in && !job.keeps_out {
        // For so much there may be no room.
        job.is_whole = false;
        job.child = clone(job);
    }
    if job.child > 0 && (is_copy && job.keeps_out || !job.is_whole) {
        wait_for_copies();
    }
    // Blocks born from now on are of the next interval; the others still stand.
    TRACKER.epoch.fetch_add(1, Relaxed);
}

/// The clone of a program with one thread: by this thread itself, where it is known that nothing holds that up (`never_waits`), and there
/// is nothing to take in, for which a filter may end who does it. A helper takes its time to run where others want to run, too.
pub fn alone(job: &mut Job, never_waits: bool) {
    if job.taken_in.is_none() && (never_waits || !userfaultfd::has_many_descriptors() && userfaultfd::serves_no_fault())
    {
        child(job, 0);
    } else {
        by_helper(job, clone_at_rest, Kind::Task);
    }
}

/// Lets the clone have what the program keeps from its forks. Gives whether it will. (A filter may end the helper for it.)
fn take_in(job: &mut Job) -> bool {
    let stand_still = job.all_stand_still();
    let Some(all) = &mut job.taken_in else { return false };
    // (Not by what was so at the scan before.)
    all.is_safe = false;
    // SAFETY: threads of this process stand still until the clone is made, and this is a helper (see `alone`).
    stand_still && unsafe { all.take() }
}

/// Keeps it from the program's forks again. (Not by a helper, which there might be no room for: one has tried that nobody is ended for it.)
fn leave_out(job: &mut Job) {
    if let Some(all) = &mut job.taken_in {
        all.undo();
    }
}

extern "C" fn snapshot(job: usize) -> ! {
    // SAFETY: the job that `child` was called with: a copy, or the program's, which stands still.
    let job = unsafe { &mut *(job as *mut Job) };
    if is_in_place() {
        job.pause_ended();
    }
    crate::child::run(job)
}

/// The program stands still while the child reads what the clone has left out.
fn wait_for_copies() {
    const PATIENCE_NS: u64 = 200_000_000;
    let Some(shared) = ledger::get() else { return };
    let started = sys::clock_ns(sys::CLOCK_MONOTONIC);
    while shared.ledger.copied.load(Acquire) == 0 && sys::clock_ns(sys::CLOCK_MONOTONIC) - started < PATIENCE_NS {
        sys::sleep_ns(50_000);
    }
    shared.ledger.released.store(1, Release);
}

/// Lets a helper make the clone, which may hang, as this thread could not be ended if it did. `false` if there is none: `refused` says why.
fn by_helper(job: &mut Job, task: extern "C" fn(usize) -> !, kind: Kind) -> bool {
    job.refused = 0;
    // SAFETY: the tasks use no thread-local state and end themselves; the job stays where it is until then.
    let helper = match unsafe { helper::start(task, &raw mut *job as usize, kind) } {
        Ok(helper) => helper,
        Err(error) => {
            job.refused = error.0;
            return false;
        }
    };
    let named = kind == Kind::Tracer && name_tracer(helper);
    helper::let_go_on();
    let is_in_time = helper::wait(helper);
    if named {
        name_tracer(0);
    }
    let broken_off = job.taken_in.as_mut().is_some_and(TakenIn::was_broken_off);
    leave_out(job);
    if broken_off && job.child == 0 && job.refused == 0 && is_in_time {
        // Without it.
        return by_helper(job, task, kind);
    }
    if !is_in_time {
        job.refused = if helper::HANGS.load(Relaxed) { Errno::EDEADLK.0 } else { Errno::ETIMEDOUT.0 };
    }
    // A filter may kill whoever calls ptrace: then the helper has said nothing, and has not cloned.
    if job.refused == 0 && job.child == 0 {
        job.refused = Errno::EPERM.0;
    }
    job.refused == 0
}

/// Lets a helper stop the threads and clone. `false` if ptrace is refused.
pub fn by_ptrace(job: &mut Job) -> bool {
    // A way that was refused stays refused: what refuses it (a filter, a container) does not change, but a debugger may go.
    if REFUSED.load(Relaxed) > 3 || helper::ends_all_of_us() && sandbox::has_filter() {
        job.refused = Errno::EPERM.0;
        return false;
    }
    job.way = Way::Ptrace;
    let made = by_helper(job, stop_and_clone, Kind::Tracer);
    if job.refused == Errno::EPERM.0 || job.refused == Errno::EACCES.0 {
        REFUSED.fetch_add(1, Relaxed);
    }
    if !made {
        job.crew.clear();
    }
    made
}

/// Where Yama restricts ptrace to descendants, we name the one that may, and its helpers.
pub fn name_tracer(process: usize) -> bool {
    const PR_SET_PTRACER: usize = 0x5961_6d61;
    // SAFETY: sets a permission of this process; takes no pointer.
    unsafe { sys::call(nr::PRCTL, [PR_SET_PTRACER, process, 0, 0, 0, 0]) }.is_ok()
}

/// The helper process where the threads stand still.
extern "C" fn clone_at_rest(job: usize) -> ! {
    // SAFETY: `by_helper` passes the address of its job and waits for this process to end.
    let job = unsafe { &mut *(job as *mut Job) };
    clone_if_it_ends(job, helper::spare_if_full());
    helper::ends()
}

/// The one that is to stop them.
extern "C" fn stop_and_clone(job: usize) -> ! {
    // SAFETY: as above.
    let job = unsafe { &mut *(job as *mut Job) };
    helper::wait_to_go_on(job.pid);
    job.crew.clear();
    let mut stopped = stop::ptrace::stop(&mut job.crew, job.pid, job.caller.tid);
    let is_full = stopped == Err(Errno::EMFILE);
    if is_full {
        helper::spare_descriptors();
        job.crew.clear();
        stopped = stop::ptrace::stop(&mut job.crew, job.pid, job.caller.tid);
    }
    match stopped {
        Ok(()) => {
            job.stopped();
            clone_if_it_ends(job, is_full);
            stop::ptrace::resume(&job.crew);
            job.pause_ended();
        }
        Err(error) => job.refused = error.0,
    }
    helper::ends()
}

/// The clone, but where it is known that it would wait for a thread that stands still. Whoever waits for this helper sees that it hangs
/// there, but not without a descriptor to look by (`is_full`).
fn clone_if_it_ends(job: &mut Job, is_full: bool) {
    let found =
        if is_full || userfaultfd::SEEN.load(Relaxed) { userfaultfd::all() } else { Ok(Userfaultfds::default()) };
    match found {
        Ok(found) if found.reports_forks => job.refused = Errno::EDEADLK.0,
        Ok(_) => {
            // (Of one thread that was done before, if it could be.)
            if job.way != Way::Alone || is_full {
                prepare(job);
            }
            // The snapshot becomes the program's child, not ours: we end at once.
            child(job, CLONE_PARENT);
        }
        Err(error) => job.refused = error.0,
    }
}

/// Whether ptrace may be tried.
pub fn may_trace(stop: &str) -> bool {
    stop != "signal" && REFUSED.load(Relaxed) == 0
}

pub fn by_signal(job: &mut Job) {
    job.way = Way::Signal;
    let caller = job.caller.tid;
    // SAFETY: the job stays where it is; `resume` follows.
    if !unsafe { stop::signal::stop(&raw mut job.crew, job.pid, caller) } {
        job.way = Way::None;
    }
    job.stopped();
    by_helper(job, clone_at_rest, Kind::Task);
    stop::signal::resume();
    job.pause_ended();
}
