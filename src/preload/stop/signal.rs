//! Stopping by a signal, where ptrace is refused (container, Yama, a debugger): each thread parks in the handler.
//!
//! The same signal, sent by another process, asks for a scan. The handler runs on any thread at any instruction: raw system
//! calls and atomics only.
#![allow(unsafe_code)] // reads the kernel's signal frame

use super::{Captured, Crew, State, VECTOR, arch, look_at};
use crate::shims::thread_pointer;
use crate::{real, sandbox};
use core::ffi::{c_int, c_void};
use core::sync::atomic::{
    AtomicU32, AtomicUsize, Ordering::AcqRel, Ordering::Acquire, Ordering::Relaxed, Ordering::Release,
};
use leakscan_engine::sys::{self, Errno, nr};

/// Odd while threads are to park.
static ROUND: AtomicU32 = AtomicU32::new(0);
/// The crew of the running stop.
static CREW: AtomicUsize = AtomicUsize::new(0);
static SIGNAL: AtomicU32 = AtomicU32::new(0);

const DEADLINE_NS: u64 = 1_000_000_000;
const BLOCKED_NS: u64 = 50_000_000;
const PATIENCE_NS: u64 = 5_000_000;
const SI_TKILL: i32 = -6;

/// glibc's `struct sigaction` on x86-64 and aarch64.
#[repr(C)]
pub struct Action {
    pub handler: usize,
    pub mask: [u64; 16],
    pub flags: c_int,
    pub restorer: usize,
}

impl Action {
    pub const DEFAULT: Self = Self { handler: 0, mask: [0; 16], flags: 0, restorer: 0 };
}

pub const SA_SIGINFO: c_int = 4;
pub const SA_ONSTACK: c_int = 0x0800_0000;
const SA_RESTART: c_int = 0x1000_0000;

/// Installs the handler, unless the program was started with one or ignores the signal. Called by the constructor.
pub fn init(signal: u64) {
    const SIG_IGN: usize = 1;
    if install(signal as c_int, handle as *const () as usize, SA_SIGINFO | SA_ONSTACK | SA_RESTART, SIG_IGN) {
        SIGNAL.store(signal as u32, Relaxed);
    }
}

/// Installs a handler, which holds all signals back, where the signal's default action (0), or what else is `at_most`, is in place.
pub fn install(signal: c_int, handler: usize, flags: c_int, at_most: usize) -> bool {
    let mut old = Action::DEFAULT;
    let new = Action { handler, mask: [u64::MAX; 16], flags, restorer: 0 };
    // SAFETY: glibc reads `new` and writes `old`; the handler lives as long as the library.
    unsafe {
        real::sigaction(signal, core::ptr::null(), &raw mut old) == 0
            && old.handler <= at_most
            && real::sigaction(signal, &raw const new, core::ptr::null_mut()) == 0
    }
}

/// Two threads have one alternate stack: the handler runs on the stack that the signal has found from now on. For who has not got it yet.
pub fn leave_alternate_stacks() {
    let (signal, mut ours) = (number() as c_int, Action::DEFAULT);
    // SAFETY: glibc writes the one action and reads the other, which is the same but for the flag.
    unsafe {
        if signal != 0
            && real::sigaction(signal, core::ptr::null(), &raw mut ours) == 0
            && ours.handler == handle as *const () as usize
            && ours.flags & SA_ONSTACK != 0
        {
            ours.flags &= !SA_ONSTACK;
            real::sigaction(signal, &raw const ours, core::ptr::null_mut());
        }
    }
}

/// The signal that is handled; 0: none.
pub fn number() -> u32 {
    SIGNAL.load(Relaxed)
}

/// Takes the signals of ours back that still wait for threads which block them: the kernel forgets those of a signal that is ignored.
pub fn forget_waiting() {
    const SIG_IGN: usize = 1;
    let (signal, mut ours) = (number() as c_int, Action::DEFAULT);
    let ignored = Action { handler: SIG_IGN, ..Action::DEFAULT };
    // SAFETY: glibc reads the one action and writes the other, which is put back.
    unsafe {
        if signal != 0
            && real::sigaction(signal, core::ptr::null(), &raw mut ours) == 0
            && ours.handler == handle as *const () as usize
            && real::sigaction(signal, &raw const ignored, core::ptr::null_mut()) == 0
        {
            real::sigaction(signal, &raw const ours, core::ptr::null_mut());
        }
    }
}

unsafe extern "C" fn handle(_: c_int, info: *const i32, context: *const c_void) {
    if sandbox::is_closed() {
        return;
    }
    // SAFETY: the kernel gives a siginfo: number, errno, code, padding, pid.
    let (code, sender) = unsafe { (*info.add(2), *info.add(4)) };
    let round = ROUND.load(Acquire);
    if code == SI_TKILL && sender as u32 == sys::getpid() {
        if round & 1 == 1 {
            // SAFETY: the context is this thread's, and lives until the handler returns.
            unsafe { park(round, context.cast()) };
        }
        return;
    }
    crate::trigger::request(leakscan_report::Trigger::Signal);
}

/// # Safety
/// `context` is the handler's `ucontext`.
unsafe fn park(round: u32, context: *const usize) {
    let crew = CREW.load(Acquire) as *mut Crew;
    if crew.is_null() {
        return;
    }
    let tid = sys::gettid();
    // SAFETY: the stopper set `CREW` for this round and waits for us; each thread writes its own entry only.
    unsafe {
        let threads = &mut *crew;
        if let Some(index) = (0..threads.used).find(|index| threads.threads[*index].tid == tid) {
            let thread = &mut threads.threads[index];
            // (Who has looked at it meanwhile has written it down as it was.)
            if Captured::take(thread) {
                let (sp, vector, len) = arch::interrupted(context, &mut thread.general);
                thread.sp = sp;
                thread.tls = thread_pointer();
                thread.has_registers = true;
                let len = len.min(VECTOR);
                core::ptr::copy_nonoverlapping(vector, threads.vectors[index].as_mut_ptr().cast::<u8>(), len);
                thread.vector_len = len;
                Captured::tell(thread, State::Stopped);
            }
        }
    }
    while ROUND.load(Acquire) == round {
        sys::futex_wait(&ROUND, round, None);
    }
}

/// Parks every thread of this process but the caller. `false` if there is no signal to do it by, or the kernel does not list
/// the threads; those found until then are parked.
///
/// # Safety
/// `crew` stays where it is until [`resume`].
pub unsafe fn stop(crew: *mut Crew, pid: u32, caller: u32) -> bool {
    let signal = number() as usize;
    CREW.store(crew as usize, Release);
    ROUND.fetch_add(1, AcqRel);
    let started = sys::clock_ns(sys::CLOCK_MONOTONIC);
    loop {
        // SAFETY: parked threads write their own entries; here only `used` grows, and states are read.
        let crew = unsafe { &mut *crew };
        let new = crew.find_new(pid, caller, |_| {});
        if signal == 0 {
            crew.threads[..crew.used].iter_mut().for_each(|thread| thread.state = State::Running);
            return false;
        }
        // Entries stand before the signal is sent, so that a thread finds its own.
        let Crew { threads, used, waiting, waits, .. } = &mut *crew;
        for thread in threads[..*used].iter_mut().filter(|thread| thread.state == State::Asked) {
            // One that was left waiting will do, and is not to have company: a user may have so many, in all of his processes.
            if waiting[..*waits].contains(&thread.tid) && Status::of(pid, thread.tid).is_some_and(|status| status.waits)
            {
                continue;
            }
            // SAFETY: sends a signal that we handle to a thread of our own.
            match unsafe { sys::call(nr::TGKILL, [pid as usize, thread.tid as usize, signal, 0, 0, 0]) } {
                Ok(_) => {}
                Err(Errno::ESRCH) => thread.state = State::Gone,
                // As many signals wait as may.
                Err(_) => {
                    if !look_at(pid, thread, true) {
                        thread.state = State::Running;
                    }
                }
            }
        }
        match new {
            Ok(0) => return true,
            Ok(_) => wait(crew, pid, started),
            Err(_) => {
                wait(crew, pid, started);
                return false;
            }
        }
    }
}

fn wait(crew: &mut Crew, pid: u32, started: u64) {
    let mut pause = 5_000;
    loop {
        let age = sys::clock_ns(sys::CLOCK_MONOTONIC).saturating_sub(started);
        let mut asked = 0;
        for thread in crew.threads[..crew.used].iter_mut() {
            // SAFETY: the state is written by the thread itself when it parks.
            let state = unsafe { (&raw const thread.state).read_volatile() };
            if state != State::Asked && state != State::Taken {
                continue;
            }
            let is_late = age > PATIENCE_NS && state == State::Asked;
            let status = if is_late { Status::of(pid, thread.tid) } else { None };
            // (Nothing is known of one that has ended.)
            if is_late && status.is_none_or(|status| status.waits || status.is_stuck) && look_at(pid, thread, true) {
                if status.is_some_and(|status| status.waits) {
                    note(crew.waiting, &mut crew.waits, thread.tid);
                }
                continue;
            }
            asked += 1;
            // Who blocks the signal may do so for good, and nobody can tell where it is: the others do not stand still for it as long.
            let patience = if status.is_some_and(|status| status.waits) { BLOCKED_NS } else { DEADLINE_NS };
            // SAFETY: it is there.
            if age > patience && unsafe { Captured::take(thread) } {
                thread.state = State::Running;
                if status.is_some_and(|status| status.waits) {
                    note(crew.waiting, &mut crew.waits, thread.tid);
                }
            }
        }
        if asked == 0 || age > DEADLINE_NS {
            return;
        }
        sys::sleep_ns(pause);
        pause = (pause * 2).min(500_000);
    }
}

/// Notes a thread in a list, if it is not there and there is room.
fn note(list: &mut [u32], used: &mut usize, tid: u32) {
    if !list[..*used].contains(&tid)
        && let Some(place) = list.get_mut(*used)
    {
        *place = tid;
        *used += 1;
    }
}

/// Why a thread may not take our signal.
#[derive(Clone, Copy)]
struct Status {
    /// The signal waits for it: it blocks the signal. (Who stands in our handler blocks it, too, but has taken it.)
    waits: bool,
    /// It blocks the signal, as it does in our handler.
    blocks: bool,
    /// It sits where no signal reaches it. (A first thread that has called pthread_exit stays as a zombie, and takes signals.)
    is_stuck: bool,
}

impl Status {
    /// `None`: nothing is known.
    fn of(pid: u32, tid: u32) -> Option<Self> {
        let (mut waits, mut blocks, mut is_stuck) = (None, None, false);
        super::each_line_of_status(pid, tid, |name, value| {
            let has = || super::signals(value).map(|signals| signals >> (number() - 1) & 1 == 1);
            match name {
                b"State" => is_stuck = matches!(value.first(), Some(b'D' | b'Z' | b'X')),
                b"SigPnd" => waits = has(),
                b"SigBlk" => blocks = has(),
                _ => {}
            }
        })
        .ok()?;
        Some(Self { waits: waits?, blocks: blocks?, is_stuck })
    }
}

/// Lets all go on.
pub fn resume() {
    ROUND.fetch_add(1, AcqRel);
    sys::futex_wake(&ROUND, usize::MAX >> 33);
}

/// Waits until the threads that were stopped have left our handler, by a system call of their own.
pub fn wait_for_returns(pid: u32) {
    const LONGEST: u32 = 2000;
    // SAFETY: a crew stays where it is until the next stop, of which there is none meanwhile.
    let Some(crew) = (unsafe { (CREW.load(Acquire) as *const Crew).as_ref() }) else { return };
    let is_inside = |thread: &Captured| {
        thread.state == State::Stopped && Status::of(pid, thread.tid).is_some_and(|status| status.blocks)
    };
    for _ in 0..LONGEST {
        if !crew.found().iter().any(is_inside) {
            return;
        }
        sys::sleep_ns(50_000);
    }
}
