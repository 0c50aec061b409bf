//! Threads that pthread_create makes: their stacks, and what is in flight while one starts.
//!
//! A record per thread, in mapped memory, recycled by the address of its control block, since glibc recycles stacks. The
//! snapshot child reads them.
#![allow(unsafe_code)] // calls the program's start routine

use crate::shims::{CONTROL_BLOCK, static_tls, thread_pointer};
use crate::{real, sandbox, tls};
use core::ffi::c_int;
use core::sync::atomic::{AtomicU32, AtomicUsize, Ordering::Acquire, Ordering::Relaxed, Ordering::Release};
use leakscan_engine::arena::Zeroed;
use leakscan_engine::record::chunks::Chunks;
use leakscan_engine::unwind::OwnStack;
use leakscan_engine::{AddrRange, sys};

/// A record is unused, starting, or belongs to the thread whose control block is `pointer` (which may have ended).
#[derive(Default)]
pub struct Record {
    state: AtomicU32,
    pub tid: AtomicU32,
    /// Start routine and argument, while they are in nobody's stack yet.
    start: AtomicUsize,
    argument: AtomicUsize,
    pub pointer: AtomicUsize,
    low: AtomicUsize,
    high: AtomicUsize,
    /// It ran when a fork began.
    runs: AtomicU32,
    /// Its stack is memory that the program has given for it.
    given: AtomicU32,
    /// Where its first frame is; thread-local storage and the control block lie above.
    entry: AtomicUsize,
}

// SAFETY: atomics are valid when zero.
unsafe impl Zeroed for Record {}

const UNUSED: u32 = 0;
const STARTING: u32 = 1;
const STARTED: u32 = 2;
/// It was another thread of the process that we are forked from: it does not run here, but what its stack holds is what the
/// parent has in use.
const PARENTS: u32 = 3;

static RECORDS: Chunks<Record, 16> = Chunks::new();

unsafe extern "C" {
    fn pthread_getattr_np(thread: usize, attr: *mut [u64; 8]) -> c_int;
    fn pthread_attr_getstack(attr: *const [u64; 8], addr: *mut usize, size: *mut usize) -> c_int;
    fn pthread_attr_destroy(attr: *mut [u64; 8]) -> c_int;
    fn pthread_self() -> usize;
}

/// pthread_create: the program's, with our start routine around its own.
#[unsafe(no_mangle)]
pub extern "C" fn pthread_create(thread: usize, attr: usize, start: usize, argument: usize) -> c_int {
    let Some(record) = claim() else { return real::pthread_create(thread, attr, start, argument) };
    record.start.store(start, Relaxed);
    record.given.store(has_stack(attr).into(), Relaxed);
    record.argument.store(argument, Release);
    let result = real::pthread_create(thread, attr, run as *const () as usize, core::ptr::from_ref(record) as usize);
    if result != 0 {
        record.argument.store(0, Relaxed);
        record.state.store(UNUSED, Release);
    }
    result
}

/// Whether these attributes name a stack (pthread_attr_setstack).
fn has_stack(attr: usize) -> bool {
    let (mut low, mut size) = (0usize, 0usize);
    // SAFETY: the program's attributes, which pthread_create is about to read, too. Without a stack its end is a null pointer.
    attr != 0
        && unsafe { pthread_attr_getstack(attr as *const [u64; 8], &raw mut low, &raw mut size) } == 0
        && low.wrapping_add(size) != 0
}

fn claim() -> Option<&'static Record> {
    let unused = all().find(|record| record.state.compare_exchange(UNUSED, STARTING, Acquire, Relaxed).is_ok());
    unused.or_else(|| {
        let (_, record) = RECORDS.add()?;
        // Another thread may have found it unused meanwhile.
        record.state.compare_exchange(UNUSED, STARTING, Acquire, Relaxed).ok().map(|_| record)
    })
}

fn all() -> impl Iterator<Item = &'static Record> {
    (1..RECORDS.end()).filter_map(|id| RECORDS.get(id))
}

extern "C-unwind" fn run(record: usize) -> usize {
    // SAFETY: `pthread_create` passed the address of a record, and records are never unmapped.
    let record = unsafe { &*(record as *const Record) };
    let start = record.start.load(Relaxed);
    let pointer = thread_pointer();
    record.entry.store(core::ptr::from_ref(&pointer) as usize, Relaxed);
    // glibc has given this thread the stack of one that ended: that one's record is this thread's now.
    for old in all().filter(|old| old.pointer.load(Relaxed) == pointer && old.state.load(Acquire) >= STARTED) {
        old.pointer.store(0, Relaxed);
        old.state.store(UNUSED, Release);
    }
    if let Some(stack) = own_stack() {
        record.low.store(stack.low, Relaxed);
        record.high.store(stack.high, Relaxed);
        if let Some(thread) = tls::current() {
            thread.stack.set(stack);
        }
    }
    record.tid.store(own_tid(), Relaxed);
    record.pointer.store(pointer, Relaxed);
    record.state.store(STARTED, Release);
    // SAFETY: the start routine that the program gave, with its argument.
    let start = unsafe { core::mem::transmute::<usize, extern "C-unwind" fn(usize) -> usize>(start) };
    enter(start, &record.argument)
}

/// By itself, so that the argument is in no register that is kept over calls: it would be a root for as long as the thread runs.
#[inline(never)]
extern "C-unwind" fn enter(start: extern "C-unwind" fn(usize) -> usize, argument: &AtomicUsize) -> usize {
    start(argument.swap(0, Acquire))
}

/// The calling thread's number, by glibc's control block of it.
pub fn own_tid() -> u32 {
    match TID_OFFSET.load(Relaxed) {
        0 => sys::gettid(),
        // SAFETY: in the thread's own control block.
        offset => unsafe { *((control_block(thread_pointer()).start + offset) as *const u32) },
    }
}

/// Where in a control block the stack is: words for where it starts, its size, and the size of a guard at its start. 0: not known.
static STACK_OFFSET: AtomicUsize = AtomicUsize::new(0);

/// The calling thread's stack, which pthread_create has made it on. By glibc the first time: its function asks malloc for a block, which
/// waits for a fork in another thread, and the kernel for the processors that the thread may run on, which a filter may end it for.
fn own_stack() -> Option<OwnStack> {
    let block = control_block(thread_pointer());
    let stack_at = |offset: usize| {
        // SAFETY: in the thread's own control block.
        let [start, size, guard] = unsafe { *((block.start + offset) as *const [usize; 3]) };
        OwnStack { low: start.wrapping_add(guard), high: start.wrapping_add(size) }
    };
    let known = STACK_OFFSET.load(Relaxed);
    if known != 0 {
        return Some(stack_at(known));
    }
    if sandbox::is_closed() {
        return None;
    }
    let stack = own_stack_by_glibc()?;
    if let Some(offset) = CONTROL_BLOCK.stack_within.step_by(8).find(|offset| stack_at(*offset) == stack) {
        STACK_OFFSET.store(offset, Relaxed);
    }
    Some(stack)
}

fn own_stack_by_glibc() -> Option<OwnStack> {
    let mut attr = [0u64; 8];
    let (mut low, mut size) = (0, 0);
    // SAFETY: `attr` has the 56 bytes of a pthread_attr_t; here, at the start of a thread, glibc holds none of its locks.
    unsafe {
        if pthread_getattr_np(pthread_self(), &raw mut attr) != 0 {
            return None;
        }
        let result = pthread_attr_getstack(&raw const attr, &raw mut low, &raw mut size);
        pthread_attr_destroy(&raw mut attr);
        (result == 0).then_some(OwnStack { low, high: low + size })
    }
}

/// Arguments on their way to threads that are starting. For the snapshot child.
pub fn in_flight() -> impl Iterator<Item = usize> {
    all()
        .filter(|record| record.state.load(Relaxed) == STARTING || record.argument.load(Relaxed) != 0)
        .map(|record| record.argument.load(Relaxed))
}

/// The stack of a thread that has started.
#[derive(Clone, Copy)]
pub struct Stack {
    pub range: AddrRange,
    pub tid: u32,
    /// The control block.
    pub pointer: usize,
    /// Frames lie below, thread-local storage above.
    pub entry: usize,
    /// The program has given it, and has it back when the thread is over.
    pub given: bool,
    parents: bool,
}

/// What has become of a thread that is not among those that were stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Its memory is somebody else's by now.
    Unknown,
    /// It runs, though it was not found.
    Runs,
    /// It runs in the process that this one is forked from.
    Parents,
    /// It has ended; what it returned waits in the control block.
    Returned,
    /// It has ended, and nobody asks for what it returned.
    Over,
}

impl Stack {
    pub fn block(&self) -> AddrRange {
        control_block(self.pointer)
    }

    /// The table of its thread-local storage and what that has from malloc: in use when the thread has ended, until another
    /// one gets its stack (glibc's allocatestack.c and dl-tls.c).
    pub fn storage(&self) -> impl Iterator<Item = usize> {
        let dtv = sys::peek(self.block().start + CONTROL_BLOCK.dtv * 8).map_or(0, |[dtv]| dtv);
        // Before the table stands how many pairs follow, each of an address and of what is to be freed.
        let pairs = sys::peek(dtv.wrapping_sub(16)).map_or(0, |[pairs]| pairs);
        let held = (1..=pairs.min(1 << 16)).map_while(move |at| sys::peek(dtv + at * 16 + 8).map(|[held]| held));
        core::iter::once(dtv).chain(held)
    }

    /// By glibc's control block, whose memory may be gone.
    pub fn fate(&self) -> Fate {
        let Some(block) = sys::peek::<{ CONTROL_BLOCK.words }>(self.block().start) else { return Fate::Unknown };
        if CONTROL_BLOCK.selves.iter().any(|word| block[*word] != self.pointer) {
            return Fate::Unknown;
        }
        if self.parents {
            return Fate::Parents;
        }
        let offset = TID_OFFSET.load(Relaxed);
        let word = |offset: usize| (block[offset / 8] >> (offset % 8 * 8)) as u32;
        // pthread_detach, and PTHREAD_CREATE_DETACHED, let the word `joinid` point to the control block itself. (glibc before 2.43.)
        let detached = || {
            let mut words = block.iter().enumerate().filter(|(at, _)| !CONTROL_BLOCK.selves.contains(at));
            words.any(|(_, word)| *word == self.pointer)
        };
        if offset == 0 {
            return Fate::Over;
        }
        let state = word(offset + STATE_BEHIND_TID);
        match word(offset) as i32 {
            // The kernel clears it when the thread ends, pthread_join sets -1 (before 2.43).
            1.. => Fate::Runs,
            0 if state & TERMINATED == 0 && !detached() => Fate::Returned,
            _ => Fate::Over,
        }
    }
}

/// `struct pthread.cancelhandling`, so many bytes behind the thread's id in every glibc from 2.35 to 2.43, and its bit that nobody will
/// ask for what the thread has returned, since that was done, or it was detached (nptl/descr.h).
const STATE_BEHIND_TID: usize = 56;
const TERMINATED: u32 = 0x20;

/// The control block of the thread with this thread pointer.
pub fn control_block(pointer: usize) -> AddrRange {
    let start = pointer.wrapping_add_signed(CONTROL_BLOCK.start);
    AddrRange::new(start, start + CONTROL_BLOCK.words * 8)
}

/// Whether a thread pointer leads to one of glibc's.
pub fn is_control_block(pointer: usize) -> bool {
    let block = sys::peek::<{ CONTROL_BLOCK.words }>(control_block(pointer).start);
    pointer != 0 && block.is_some_and(|block| CONTROL_BLOCK.selves.iter().all(|word| block[*word] == pointer))
}

/// A thread's control block, and `size` bytes of static thread-local storage.
pub fn storage(pointer: usize, size: usize) -> AddrRange {
    let (block, storage) = (control_block(pointer), static_tls(pointer, size));
    AddrRange::new(block.start.min(storage.start), block.end.max(storage.end))
}

/// Where in a control block the thread's id is; 0: unknown.
static TID_OFFSET: AtomicUsize = AtomicUsize::new(0);

/// Finds the id in main's own control block. Called by the constructor.
pub fn init() {
    let (block, tid) = (control_block(thread_pointer()), sys::gettid());
    // Word by word, since how long the block is below is not known.
    let found = CONTROL_BLOCK.id_within.step_by(8).find_map(|offset| {
        let [word] = sys::peek(block.start + offset)?;
        [word as u32, (word >> 32) as u32].iter().position(|half| *half == tid).map(|half| offset + half * 4)
    });
    TID_OFFSET.store(found.unwrap_or(0), Relaxed);
}

/// All of them, those that have ended too. For the snapshot child.
pub fn stacks() -> impl Iterator<Item = Stack> {
    all().filter(|record| record.state.load(Relaxed) >= STARTED && record.high.load(Relaxed) != 0).map(stack)
}

fn stack(record: &Record) -> Stack {
    Stack {
        range: AddrRange::new(record.low.load(Relaxed), record.high.load(Relaxed)),
        tid: record.tid.load(Relaxed),
        pointer: record.pointer.load(Relaxed),
        entry: record.entry.load(Relaxed),
        given: record.given.load(Relaxed) != 0,
        parents: record.state.load(Relaxed) == PARENTS,
    }
}

/// Notes which threads run, for the child, in which glibc has taken their ids from them; where the kernel may not be asked, that all do.
pub fn before_fork(may_be_asked: bool) {
    for record in all().filter(|record| record.state.load(Relaxed) == STARTED) {
        let runs = !may_be_asked || sys::thread_exists(record.tid.load(Relaxed));
        record.runs.store(runs.into(), Relaxed);
    }
}

/// In the child of a fork only the forking thread is left. Its own record has a new thread id.
pub fn forked() {
    let (pointer, tid) = (thread_pointer(), sys::gettid());
    for record in all().filter(|record| record.state.load(Relaxed) == STARTED) {
        if record.pointer.load(Relaxed) == pointer {
            record.tid.store(tid, Relaxed);
        } else if record.runs.load(Relaxed) == 1 {
            record.state.store(PARENTS, Relaxed);
        }
    }
}
