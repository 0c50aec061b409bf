//! Stop the world: every thread but the calling one, with its registers, for as long as it takes to clone the process.
//!
//! Two ways: a helper process that shares our memory and seizes the threads by [`ptrace`], and a [`signal`] where that is
//! refused. Neither waits without an end; a thread that could not be stopped is named, and its stack is taken as far as the
//! kernel tells where it is.
#![allow(unsafe_code)] // the crew is shared between the caller, the helper and signal handlers

#[cfg(target_arch = "aarch64")]
#[path = "aarch64.rs"]
mod arch;
#[cfg(target_arch = "x86_64")]
#[path = "x86_64.rs"]
mod arch;
pub mod ptrace;
pub mod signal;

use crate::report_file::read_link;
use core::ffi::CStr;
use core::sync::atomic::{AtomicU32, Ordering::AcqRel, Ordering::Acquire, Ordering::Release};
use leakscan_engine::arena::{self, Zeroed};
use leakscan_engine::sys::{self, Errno};

pub use arch::GENERAL;
/// Room for a thread's vector registers.
pub const VECTOR: usize = 4096;

/// How far a thread came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum State {
    /// Found, and asked to stop.
    Asked = 0,
    Stopped = 1,
    /// It ended meanwhile.
    Gone = 2,
    /// It sits in the kernel where nothing can stop it, and cannot run: its stack pointer is known, and of its registers the arguments
    /// of the call.
    Frozen = 3,
    /// It did not stop in time.
    Running = 4,
    /// Somebody writes down what is known of it: the thread itself as it stops, or who looks at it.
    Taken = 5,
}

/// A system call that came to an end because its thread was stopped.
#[derive(Clone, Copy, Debug)]
pub struct EndedEarly {
    /// A socket says how long it waits at most, which begins anew with it.
    pub has_timeout: bool,
    /// Behind the call.
    pub pc: usize,
}

/// What is known of one thread.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Captured {
    pub tid: u32,
    pub state: State,
    /// A signal that it was about to take: to be given back.
    signal: u32,
    pub has_registers: bool,
    /// What it waits for in the kernel no signal interrupts (a child of vfork, a disk).
    pub is_uninterruptible: bool,
    pub sp: usize,
    /// Thread pointer; 0 if unknown.
    pub tls: usize,
    pub general: [usize; GENERAL],
    pub vector_len: usize,
}

// SAFETY: all fields are valid when zero (`State::Asked` is 0).
unsafe impl Zeroed for Captured {}

impl Captured {
    /// Takes it to write down what is known of it. `false`: somebody else has, or it is known already.
    ///
    /// # Safety
    /// There is one at `thread`.
    unsafe fn take(thread: *mut Self) -> bool {
        // SAFETY: by this function's own contract.
        let state = unsafe { Self::state(thread) };
        state.compare_exchange(State::Asked as u32, State::Taken as u32, AcqRel, Acquire).is_ok()
    }

    /// Says that all is written down.
    ///
    /// # Safety
    /// As above.
    unsafe fn tell(thread: *mut Self, state: State) {
        // SAFETY: by this function's own contract.
        unsafe { Self::state(thread) }.store(state as u32, Release);
    }

    /// # Safety
    /// As above.
    unsafe fn state<'a>(thread: *mut Self) -> &'a AtomicU32 {
        // SAFETY: by this function's own contract; a state is four bytes.
        unsafe { AtomicU32::from_ptr((&raw mut (*thread).state).cast()) }
    }

    const fn new(tid: u32) -> Self {
        Self {
            tid,
            state: State::Asked,
            signal: 0,
            has_registers: false,
            is_uninterruptible: false,
            sp: 0,
            tls: 0,
            general: [0; GENERAL],
            vector_len: 0,
        }
    }
}

/// The threads of one stop. In mapped memory, kept from scan to scan.
pub struct Crew {
    pub threads: &'static mut [Captured],
    pub used: usize,
    vectors: &'static mut [[usize; VECTOR / 8]],
    directory: &'static mut [u8],
    /// Threads that found no room.
    pub overflow: usize,
    /// There is a /proc, but another name space's, where this process has another number and so have its threads.
    pub cannot_list: bool,
    /// Threads that our signal was left waiting for in scans before.
    waiting: &'static mut [u32],
    waits: usize,
}

impl Crew {
    /// A crew with room for `threads` and some that start meanwhile. `None` without memory.
    pub fn new(threads: usize) -> Option<Self> {
        let room = threads + threads / 4 + 16;
        Some(Self {
            threads: arena::zeroed(room)?,
            used: 0,
            vectors: arena::zeroed(room)?,
            directory: arena::zeroed(32 << 10)?,
            overflow: 0,
            cannot_list: false,
            waiting: arena::zeroed(room)?,
            waits: 0,
        })
    }

    /// One without room, where there is nobody to stop.
    pub fn alone() -> Self {
        Self {
            threads: &mut [],
            used: 0,
            vectors: &mut [],
            directory: &mut [],
            overflow: 0,
            cannot_list: false,
            waiting: &mut [],
            waits: 0,
        }
    }

    pub fn room(&self) -> usize {
        self.threads.len()
    }

    pub fn clear(&mut self) {
        self.used = 0;
        self.overflow = 0;
    }

    /// The threads found so far.
    pub fn found(&self) -> &[Captured] {
        &self.threads[..self.used]
    }

    /// A thread's vector registers.
    pub fn vector(&self, index: usize) -> &[usize] {
        let len = self.threads[index].vector_len.min(VECTOR) / 8;
        &self.vectors[index][..len]
    }

    fn add(&mut self, tid: u32) -> Option<usize> {
        let Some(place) = self.threads.get_mut(self.used) else {
            self.overflow += 1;
            return None;
        };
        *place = Captured::new(tid);
        self.used += 1;
        Some(self.used - 1)
    }

    /// Adds threads of process `pid` that are not there yet, other than `but`; calls `ask` for each; gives their number.
    ///
    /// # Errors
    /// The kernel's, where it does not list the threads (no /proc, no free descriptor).
    fn find_new(&mut self, pid: u32, but: u32, mut ask: impl FnMut(&mut Captured)) -> Result<usize, Errno> {
        if self.cannot_list {
            return Err(Errno::ENOENT);
        }
        let mut path = [0; 40];
        let path = sys::proc_path(&mut path, pid, b"task");
        let before = self.used;
        let buffer = core::mem::take(&mut self.directory);
        let read = sys::numbers_in(path, buffer, |tid| {
            // New threads have ids that are not among those found before, so a search of all is what it takes.
            if tid != but
                && !self.found().iter().any(|thread| thread.tid == tid)
                && let Some(index) = self.add(tid)
            {
                ask(&mut self.threads[index]);
            }
        });
        self.directory = buffer;
        read.map(|()| self.used - before)
    }
}

/// Threads of this process.
pub fn count() -> usize {
    // Links, less `.` and `..`. Without /proc nothing is known: say 0.
    sys::stat(c"/proc/self/task").map_or(0, |stat| (stat.links as usize).saturating_sub(2))
}

/// Whether a thread waits so that no signal disturbs it, as in vfork.
pub fn waits_undisturbed(pid: u32, tid: u32) -> bool {
    let (mut path, mut buffer) = ([0u8; 64], [0u8; 512]);
    let stat = sys::read_file(task_path(&mut path, pid, tid, b"stat"), &mut buffer);
    stat.is_ok_and(|stat| state_in(stat) == Some(b'D'))
}

/// How a process's first thread is. `None`: nobody tells.
pub fn first_thread_of(pid: u32) -> Option<FirstThread> {
    const EXITING: u64 = 4;
    let (mut path, mut buffer) = ([0u8; 64], [0u8; 512]);
    let stat = sys::read_file(task_path(&mut path, pid, pid, b"stat"), &mut buffer).ok()?;
    let state = state_in(stat)?;
    // Behind the state stand five numbers, and then its flags.
    let behind = stat.iter().rposition(|&byte| byte == b')').and_then(|at| stat.get(at..))?;
    let flags = behind.split(|&byte| byte == b' ').nth(7).and_then(|digits| core::str::from_utf8(digits).ok());
    let is_exiting = flags?.parse().map_or(true, |flags: u64| flags & EXITING != 0);
    Some(FirstThread { is_suspended: matches!(state, b'T' | b't'), is_exiting })
}

pub struct FirstThread {
    /// By a signal, or by who traces it: so are all.
    pub is_suspended: bool,
    pub is_exiting: bool,
}

/// `tid (name) S ...`: the name may hold anything but ends at the last parenthesis.
fn state_in(stat: &[u8]) -> Option<u8> {
    stat.iter().rposition(|&byte| byte == b')').and_then(|at| stat.get(at + 2)).copied()
}

/// A thread that does not answer: where the kernel says that it is.
fn look_at(pid: u32, thread: &mut Captured, blocked_is_enough: bool) -> bool {
    let mut buffer = [0u8; 512];
    let mut path = [0u8; 64];
    let stat = match sys::read_file(task_path(&mut path, pid, thread.tid, b"stat"), &mut buffer) {
        Ok(stat) => stat,
        Err(Errno::ENOENT | Errno::ESRCH) => return is_gone(thread),
        Err(_) => return false,
    };
    let state = state_in(stat);
    if matches!(state, Some(b'Z' | b'X')) {
        return is_gone(thread);
    }
    let frozen = state == Some(b'D') || blocked_is_enough && state == Some(b'S');
    if !frozen {
        return false;
    }
    // `number a0 .. a5 sp pc`, all in hexadecimal but the first.
    let Ok(text) = sys::read_file(task_path(&mut path, pid, thread.tid, b"syscall"), &mut buffer) else { return false };
    let field = text.split(|&byte| byte == b' ').nth(7).and_then(|field| field.strip_prefix(b"0x"));
    let sp = field
        .and_then(|field| core::str::from_utf8(field).ok())
        .and_then(|field| usize::from_str_radix(field, 16).ok());
    let Some(sp) = sp else { return false };
    // SAFETY: it is there.
    if !unsafe { Captured::take(thread) } {
        return false;
    }
    thread.sp = sp;
    thread.is_uninterruptible = state == Some(b'D');
    // The arguments of the call are registers.
    for (place, field) in thread.general.iter_mut().zip(text.split(|&byte| byte == b' ').skip(1).take(6)) {
        let digits = field.strip_prefix(b"0x").and_then(|field| core::str::from_utf8(field).ok());
        *place = digits.and_then(|digits| usize::from_str_radix(digits, 16).ok()).unwrap_or(0);
    }
    thread.has_registers = true;
    thread.state = State::Frozen;
    true
}

fn is_gone(thread: &mut Captured) -> bool {
    // SAFETY: it is there.
    let taken = unsafe { Captured::take(thread) };
    if taken {
        thread.state = State::Gone;
    }
    taken
}

/// Whether the files of /proc about a process of this number are this process's.
pub fn proc_is_ours(pid: u32) -> bool {
    let mut link = [0; 20];
    read_link(c"/proc/self", &mut link) == sys::decimal(u64::from(pid), &mut [0; 20])
}

/// Gives each line of a thread's status by name and value, in the kernel's order.
///
/// # Errors
/// The thread is gone, or there is no /proc.
pub fn each_line_of_status(pid: u32, tid: u32, mut each: impl FnMut(&[u8], &[u8])) -> Result<(), Errno> {
    // (One line is as long as the process has groups.)
    let (mut path, mut buffer) = ([0; 64], [0; 2048]);
    sys::each_line(task_path(&mut path, pid, tid, b"status"), &mut buffer, |line| {
        if let Some(colon) = line.iter().position(|&byte| byte == b':') {
            each(&line[..colon], line[colon + 1..].trim_ascii());
        }
    })
}

/// A set of signals, as the status of a thread gives it.
pub fn signals(set: &[u8]) -> Option<u64> {
    u64::from_str_radix(core::str::from_utf8(set).ok()?, 16).ok()
}

pub fn task_path<'a>(path: &'a mut [u8; 64], pid: u32, tid: u32, name: &[u8]) -> &'a CStr {
    let mut digits = [0; 20];
    let mut tail = [0u8; 32];
    let mut used = 0;
    for part in [&b"task/"[..], sys::decimal(u64::from(tid), &mut digits), b"/", name] {
        tail[used..used + part.len()].copy_from_slice(part);
        used += part.len();
    }
    sys::proc_path(path, pid, &tail[..used])
}
