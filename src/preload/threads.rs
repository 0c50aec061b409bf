//! Threads that pthread_create makes: their stacks, and what is in flight while one starts.
//!
//! A record per thread, in mapped memory, recycled by the address of its control block, since glibc recycles stacks. The
//! snapshot child reads them.
#![allow(unsafe_code)] // calls the program's start routine

use crate::shims::thread_pointer;
use crate::{real, tls};
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
    /// Where its first frame is; thread-local storage and the control block lie above.
    entry: AtomicUsize,
}

// SAFETY: atomics are valid when zero.
unsafe impl Zeroed for Record {}

const UNUSED: u32 = 0;
const STARTING: u32 = 1;
const STARTED: u32 = 2;

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
    record.argument.store(argument, Release);
    let result = real::pthread_create(thread, attr, run as *const () as usize, core::ptr::from_ref(record) as usize);
    if result != 0 {
        record.argument.store(0, Relaxed);
        record.state.store(UNUSED, Release);
    }
    result
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
    let (start, argument) = (record.start.load(Relaxed), record.argument.load(Acquire));
    let pointer = thread_pointer();
    record.entry.store(core::ptr::from_ref(&pointer) as usize, Relaxed);
    // glibc has given this thread the stack of one that ended: that one's record is this thread's now.
    for old in all().filter(|old| old.pointer.load(Relaxed) == pointer && old.state.load(Acquire) == STARTED) {
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
    record.tid.store(sys::gettid(), Relaxed);
    record.pointer.store(pointer, Relaxed);
    record.state.store(STARTED, Release);
    record.argument.store(0, Relaxed);
    // SAFETY: the start routine that the program gave, with its argument.
    let start = unsafe { core::mem::transmute::<usize, extern "C-unwind" fn(usize) -> usize>(start) };
    start(argument)
}

fn own_stack() -> Option<OwnStack> {
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

/// The stack of a thread that has started. The thread may have ended.
#[derive(Clone, Copy)]
pub struct Stack {
    pub range: AddrRange,
    pub tid: u32,
    /// The control block.
    pub pointer: usize,
    /// Frames lie below, thread-local storage above.
    pub entry: usize,
}

/// All of them. For the snapshot child.
pub fn stacks() -> impl Iterator<Item = Stack> {
    all().filter(|record| record.state.load(Relaxed) == STARTED && record.high.load(Relaxed) != 0).map(|record| Stack {
        range: AddrRange::new(record.low.load(Relaxed), record.high.load(Relaxed)),
        tid: record.tid.load(Relaxed),
        pointer: record.pointer.load(Relaxed),
        entry: record.entry.load(Relaxed),
    })
}

/// In the child of a fork only the forking thread is left; the records of the others would be taken for dead stacks, which is
/// what they are. Its own has a new thread id.
pub fn forked() {
    let (pointer, tid) = (thread_pointer(), sys::gettid());
    for record in all().filter(|record| record.pointer.load(Relaxed) == pointer) {
        record.tid.store(tid, Relaxed);
    }
}
