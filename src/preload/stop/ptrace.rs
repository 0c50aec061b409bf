//! Stopping by ptrace: asks all first, then waits for all (asking one by one took LeakSanitizer 1.5 s for 1,000 threads where
//! this takes 17 to 49 ms), in rounds, until no thread appears.
//!
//! Runs in a helper process that shares our memory and nothing else: raw system calls only, no thread-local state.
#![allow(unsafe_code)] // ptrace

use super::{Captured, Crew, EndedEarly, State, Timeout, VECTOR, arch, look_at};
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
    for thread in crew.found().iter().filter(|thread| thread.state == State::Stopped) {
        begin_anew(thread, is_first_time);
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
        && (call.timeout == Timeout::Nobody || may(thread, call))
    {
        let _ = ptrace(POKEUSER, thread.tid, arch::RESULT, ERESTARTNOHAND);
    }
}

/// Threads whose wait has begun anew, each at its number: its stack pointer, its place, and how often it had run. Of two at one place the
/// later one stays.
static ANEW: [[AtomicUsize; 3]; 256] = [const { [const { AtomicUsize::new(0) }; 3] }; 256];

/// Whether the thread is not in the wait which began anew at the stop before: no timeout is longer than twice by us. Who stands at the same
/// place may be in its next wait, as the threads of a pool are: of those that only a socket knows a timeout of, which programs hardly expect to be
/// ended, the kernel is asked how often they have run.
fn is_first_time(thread: &Captured, call: EndedEarly) -> bool {
    /// To begin the wait anew, and to stop.
    const IN_ONE_WAIT: usize = 2;
    let [sp, place, times] = &ANEW[thread.tid as usize % ANEW.len()];
    let now = if call.timeout == Timeout::Socket { times_run(thread.tid).unwrap_or(0) } else { 0 };
    let same_sp = sp.swap(thread.sp, Relaxed) == thread.sp;
    let same_place = place.swap(call.pc, Relaxed) == call.pc;
    let same_wait = now.wrapping_sub(times.swap(now, Relaxed)) <= IN_ONE_WAIT;
    let is_same = same_sp && same_place && same_wait;
    if is_same {
        place.store(0, Relaxed);
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
