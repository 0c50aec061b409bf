//! Stopping by ptrace: asks all first, then waits for all (asking one by one took LeakSanitizer 1.5 s for 1,000 threads where
//! this takes 17 to 49 ms), in rounds, until no thread appears.
//!
//! Runs in a helper process that shares our memory and nothing else: raw system calls only, no thread-local state.
#![allow(unsafe_code)] // ptrace

use super::{Captured, Crew, EndedEarly, State, VECTOR, arch, look_at};
use core::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use leakscan_engine::sys::{self, Errno, nr};

const SEIZE: usize = 0x4206;
const INTERRUPT: usize = 0x4207;
const GETREGSET: usize = 0x4204;
const PEEKSIGINFO: usize = 0x4209;
const POKEUSER: usize = 6;
const DETACH: usize = 17;
const GENERAL_SET: usize = 1;
const WALL: usize = 0x4000_0000;
const WNOHANG: usize = 1;

/// After this a thread that has not stopped is looked at.
const PATIENCE_NS: u64 = 20_000_000;
/// After this it is left running, and named.
const DEADLINE_NS: u64 = 2_000_000_000;

fn ptrace(request: usize, tid: u32, addr: usize, data: usize) -> Result<usize, Errno> {
    // SAFETY: each caller gives what the request takes; memory that the kernel writes is the caller's own.
    unsafe { sys::call(nr::PTRACE, [request, tid as usize, addr, data, 0, 0]) }
}

/// Stops every thread of `pid` but `caller`.
///
/// # Errors
/// Where the kernel refuses to trace or to list the threads; nothing is stopped then.
pub fn stop(crew: &mut Crew, pid: u32, caller: u32) -> Result<(), Errno> {
    let started = sys::clock_ns(sys::CLOCK_MONOTONIC);
    loop {
        let mut refused = None;
        let new = crew.find_new(pid, caller, |thread| match ptrace(SEIZE, thread.tid, 0, 0) {
            Ok(_) => drop(ptrace(INTERRUPT, thread.tid, 0, 0)),
            Err(Errno::ESRCH) => thread.state = State::Gone,
            // EPERM is also what the kernel answers for a thread that is just ending, or has ended and is not joined.
            Err(_) if look_at(pid, thread, false) && thread.state == State::Gone => {}
            Err(error) => {
                refused = Some(error);
                thread.state = State::Running;
            }
        });
        let error = refused.or(new.err());
        if let Some(error) = error {
            resume(crew);
            return Err(error);
        }
        if new == Ok(0) {
            break;
        }
        wait(crew, pid, started);
    }
    for index in 0..crew.used {
        if crew.threads[index].state == State::Stopped {
            registers(&mut crew.threads[index], &mut crew.vectors[index]);
        }
    }
    Ok(())
}

fn wait(crew: &mut Crew, pid: u32, started: u64) {
    let mut pause = 2_000;
    loop {
        let mut asked = 0;
        let age = sys::clock_ns(sys::CLOCK_MONOTONIC).saturating_sub(started);
        for thread in crew.threads[..crew.used].iter_mut().filter(|thread| thread.state == State::Asked) {
            if !(stopped(thread) || age > PATIENCE_NS && look_at(pid, thread, false)) {
                asked += 1;
                if age > DEADLINE_NS {
                    thread.state = State::Running;
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

/// Whether the thread has reported; sets its state.
fn stopped(thread: &mut Captured) -> bool {
    let mut status = 0i32;
    let args = [thread.tid as usize, &raw mut status as usize, WALL | WNOHANG, 0, 0, 0];
    // SAFETY: the kernel writes one word to `status`.
    match unsafe { sys::call(nr::WAIT4, args) } {
        Ok(0) => return false,
        Ok(_) if status & 0xff == 0x7f => {
            thread.state = State::Stopped;
            // An event stop (PTRACE_EVENT_STOP, 128) is ours or a group stop; anything else is a signal on its way.
            if status >> 16 != 128 {
                thread.signal = (status >> 8 & 0xff) as u32;
            }
        }
        Ok(_) | Err(_) => thread.state = State::Gone,
    }
    true
}

fn registers(thread: &mut Captured, vector: &mut [usize; VECTOR / 8]) {
    let tid = thread.tid;
    if read(tid, GENERAL_SET, &mut thread.general).is_none() {
        thread.state = State::Running;
        return;
    }
    thread.has_registers = true;
    (thread.sp, thread.tls) = arch::pointers(&thread.general, |set, words| read(tid, set, words));
    thread.vector_len = read(tid, arch::VECTOR_SET, vector).unwrap_or(0);
}

/// Fills `words` with a thread's register set; gives its length in bytes.
fn read(tid: u32, set: usize, words: &mut [usize]) -> Option<usize> {
    let mut slice = [words.as_mut_ptr() as usize, size_of_val(words)];
    ptrace(GETREGSET, tid, set, slice.as_mut_ptr() as usize).ok().map(|_| slice[1])
}

/// Lets all go on.
pub fn resume(crew: &Crew) {
    let round = ROUND.fetch_add(1, Relaxed) + 1;
    for thread in crew.found().iter().filter(|thread| thread.state == State::Stopped) {
        begin_anew(thread, |thread, call| is_first_time(thread, call, round));
        let _ = ptrace(DETACH, thread.tid, 0, thread.signal as usize);
    }
}

/// A call that the stop alone has ended, with EINTR, begins anew, as the kernel lets most others: not if there is a signal for a handler of the
/// program's, which the kernel decides when the thread goes on. One with a timeout, which begins anew, too, only if it `may`.
fn begin_anew(thread: &Captured, may: impl Fn(&Captured, EndedEarly) -> bool) {
    /// What a call gives to the kernel to have it so; nobody else sees it.
    const ERESTARTNOHAND: usize = -514isize as usize;
    if thread.has_registers
        && let Some(call) = arch::ended_early(&thread.general)
        && (!call.has_timeout || may(thread, call))
    {
        let _ = ptrace(POKEUSER, thread.tid, arch::RESULT, ERESTARTNOHAND);
    }
}

static ROUND: AtomicUsize = AtomicUsize::new(0);

/// A thread whose wait has begun anew. (Only one helper at a time is at these.)
struct Wait {
    tid: AtomicUsize,
    sp: AtomicUsize,
    pc: AtomicUsize,
    /// How often the thread had run.
    times: AtomicUsize,
    /// The stop that was.
    round: AtomicUsize,
}

static WAITS: [Wait; 1024] = [const {
    let [tid, sp, pc, times, round] = [const { AtomicUsize::new(0) }; 5];
    Wait { tid, sp, pc, times, round }
}; 1024];

/// Whether the thread is known not to be in the wait which began anew at the stop before: no timeout is longer than twice by us. Who stands at
/// the same place may be in its next wait, as the threads of a pool are: the kernel is asked how often they have run.
fn is_first_time(thread: &Captured, call: EndedEarly, round: usize) -> bool {
    /// To begin the wait anew, and to stop.
    const IN_ONE_WAIT: usize = 2;
    const NEAR: usize = 8;
    let tid = thread.tid as usize;
    let near = || (tid..tid + NEAR).map(|at| &WAITS[at % WAITS.len()]);
    let is_free = |wait: &&Wait| wait.tid.load(Relaxed) == 0 || wait.round.load(Relaxed) + 1 < round;
    let its = near().find(|wait| wait.tid.load(Relaxed) == tid && !is_free(wait));
    // (Where there is no room nobody would know of the next time.)
    let Some(wait) = its.or_else(|| near().find(is_free)) else { return false };
    let now = times_run(thread.tid).unwrap_or(0);
    let is_same = its.is_some()
        && wait.sp.load(Relaxed) == thread.sp
        && wait.pc.load(Relaxed) == call.pc
        && now.wrapping_sub(wait.times.load(Relaxed)) <= IN_ONE_WAIT;
    let whose = if is_same { 0 } else { tid };
    for (place, value) in
        [(&wait.tid, whose), (&wait.sp, thread.sp), (&wait.pc, call.pc), (&wait.times, now), (&wait.round, round)]
    {
        place.store(value, Relaxed);
    }
    !is_same
}

/// How often a thread was put on a CPU.
fn times_run(tid: u32) -> Option<usize> {
    let (mut path, mut buffer) = ([0; 40], [0; 96]);
    let text = sys::read_file(sys::proc_path(&mut path, tid, b"schedstat"), &mut buffer).ok()?;
    let last = text.trim_ascii_end().rsplit(|&byte| byte == b' ').next()?;
    core::str::from_utf8(last).ok()?.parse().ok()
}

/// A `siginfo_t`: number and errno, code, and from the third word on what depends on these.
pub type SignalInfo = [usize; 16];

/// Stops the thread for a moment, and gives the signals that wait for it (`shared`: for its process), which stay where they are. For a
/// process that ends soon, since it may leave the thread seized.
///
/// # Errors
/// Where the kernel refuses to trace it, or it has not stopped `until` then.
pub fn waiting_signals(tid: u32, shared: bool, until: u64, mut each: impl FnMut(&SignalInfo)) -> Result<(), Errno> {
    const AT_A_TIME: usize = 8;
    ptrace(SEIZE, tid, 0, 0)?;
    let mut thread = Captured::new(tid);
    let _ = ptrace(INTERRUPT, tid, 0, 0);
    while !stopped(&mut thread) {
        if sys::clock_ns(sys::CLOCK_MONOTONIC) > until {
            return Err(Errno::EBUSY);
        }
        sys::sleep_ns(20_000);
    }
    if thread.state != State::Stopped {
        return Err(Errno::ESRCH);
    }
    let (mut infos, mut at) = ([[0usize; 16]; AT_A_TIME], 0u64);
    loop {
        // `struct ptrace_peeksiginfo_args`: the number of the first, a flag, how many.
        let which = [at, u64::from(shared) | (AT_A_TIME as u64) << 32];
        let found = ptrace(PEEKSIGINFO, tid, which.as_ptr() as usize, infos.as_mut_ptr() as usize).unwrap_or(0);
        infos.iter().take(found).for_each(&mut each);
        if found < AT_A_TIME {
            break;
        }
        at += found as u64;
    }
    thread.has_registers = read(tid, GENERAL_SET, &mut thread.general).is_some();
    begin_anew(&thread, |_, _| false);
    let _ = ptrace(DETACH, tid, 0, thread.signal as usize);
    Ok(())
}
