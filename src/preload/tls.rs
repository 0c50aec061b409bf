//! Thread state: one word of initial-exec TLS, which points to a mapped block of our own.
//!
//! The word is 0 in a thread that has not allocated yet and [`GONE`] in one whose destructors have run. Blocks are recycled
//! by a pthread key's destructor, in slabs, and never unmapped.
#![allow(unsafe_code)] // hands out the calling thread's block as a reference

use crate::shims::{set_thread_word, thread_pointer, thread_word};
use crate::{bundled, sandbox, settings, threads};
use core::cell::Cell;
use core::ffi::{c_int, c_void};
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU32, AtomicUsize, Ordering::Acquire, Ordering::Relaxed, Ordering::Release};
use leakscan_engine::AddrRange;
use leakscan_engine::arena::{self, Zeroed};
use leakscan_engine::heap::Cache;
use leakscan_engine::lock::Lock;
use leakscan_engine::record::live_map::Family;
use leakscan_engine::record::sampler::Sampler;
use leakscan_engine::sys;
use leakscan_engine::unwind::memo::{Ids, Memo};
use leakscan_engine::unwind::walk::{NodeCache, Trace};
use leakscan_engine::unwind::{OwnStack, RETURN_BELOW_CFA};

const GONE: usize = 1;
const SLAB: usize = 16;
/// Remembered stacks of a thread without a memo.
const IDS: usize = 512;

/// From where an operator new or delete was called, until its malloc or free is entered. Written by the operators' entries
/// (src/preload/shims), too.
#[repr(C)]
pub struct Note {
    /// 0: there is none.
    pub sp: Cell<usize>,
    pub fp: Cell<usize>,
    /// The number of the [`Family`]; [`DELETES`] more if blocks of it are deleted.
    pub what: Cell<u32>,
    /// The lower half of the size that an operator new was asked for; 0: not known.
    pub size: Cell<u32>,
}

pub const DELETES: u32 = 8;
/// An operator new has been refused its block: it may ask again, or allocate its exception.
const REFUSED: u32 = 16;

/// What a [`Note`] says.
#[derive(Clone, Copy)]
pub struct Operator {
    pub sp: usize,
    pub fp: usize,
    pub family: Family,
    pub deletes: bool,
    refused: bool,
    size: u32,
}

impl Operator {
    /// What it was asked for, where it has asked for `size` bytes itself: those with an alignment round it up.
    #[inline(always)]
    pub const fn asked(&self, size: usize) -> usize {
        let more = (size as u32).wrapping_sub(self.size) as usize;
        if self.size != 0 && more < 4096 && more < size { size - more } else { size }
    }

    /// Whether an operator new that this is the note of has called the malloc of `size` bytes whose caller's stack pointer is `sp`: its
    /// own caller's frame is near above. After a refusal it asks for as much again.
    #[inline(always)]
    pub const fn has_called(&self, sp: usize, size: usize) -> bool {
        let same = !self.refused || self.size != 0 && self.asked(size) as u32 == self.size;
        !self.deletes && self.sp > sp && self.sp - sp < 512 && same
    }
}

impl Note {
    #[inline(always)]
    pub fn get(&self) -> Option<Operator> {
        let sp = self.sp.get();
        if sp == 0 {
            return None;
        }
        let what = self.what.get();
        Some(Operator {
            sp,
            fp: self.fp.get(),
            family: Family::of(what),
            deletes: what & DELETES != 0,
            refused: what & REFUSED != 0,
            size: self.size.get(),
        })
    }

    #[inline(always)]
    pub fn take(&self) -> Option<Operator> {
        let operator = self.get()?;
        self.sp.set(0);
        Some(operator)
    }

    /// The block that was asked for meanwhile is refused.
    pub fn refuse(&self) {
        self.what.set(self.what.get() | REFUSED);
    }

    /// `what` as in [`Note::what`].
    pub fn set(&self, what: u32, sp: usize, fp: usize) {
        self.what.set(what);
        self.fp.set(fp);
        self.sp.set(sp);
    }
}

/// A realloc that is under way.
#[repr(C)]
pub struct Moving {
    /// The block that is moved; 0: none.
    pub addr: AtomicUsize,
    pub cell: AtomicU32,
    /// The size that it is to have.
    pub size: AtomicUsize,
    /// The caller's stack pointer: the new block's address stands below, or in a register, until it is in the live map.
    pub sp: AtomicUsize,
    /// How many bytes the block has: an allocator need not know that of a block that it is at.
    pub usable: AtomicUsize,
}

impl Moving {
    const fn none() -> Self {
        Self {
            addr: AtomicUsize::new(0),
            cell: AtomicU32::new(0),
            size: AtomicUsize::new(0),
            sp: AtomicUsize::new(0),
            usable: AtomicUsize::new(0),
        }
    }
}

/// For a thread without a block, as a thread is in its last destructors.
struct Spare {
    /// 0: nobody's.
    tid: AtomicU32,
    moving: Moving,
}

static SPARES: [Spare; 32] = [const { Spare { tid: AtomicU32::new(0), moving: Moving::none() } }; 32];

/// Where the calling thread notes its realloc, until [`moved`]. `None`: more threads without a block are at one than there is room for.
pub fn to_move() -> Option<&'static Moving> {
    if let Some(thread) = current() {
        return Some(&thread.moving);
    }
    let tid = own_tid();
    SPARES.iter().find(|spare| spare.tid.compare_exchange(0, tid, Acquire, Relaxed).is_ok()).map(|spare| &spare.moving)
}

/// The block that was moved is in the live map.
pub fn moved(moving: &Moving) {
    moving.addr.store(0, Relaxed);
    let from_first = core::ptr::from_ref(moving).addr().wrapping_sub(SPARES.as_ptr().addr());
    if let Some(spare) = SPARES.get(from_first / size_of::<Spare>()) {
        spare.tid.store(0, Release);
    }
}

/// A thread in which a realloc is under way.
pub struct Mover {
    pub tid: u32,
    pub moving: &'static Moving,
    pub alternate: AddrRange,
}

/// A thread's alternate signal stack; size 0: none.
#[repr(C)]
pub struct Alternate {
    pub start: AtomicUsize,
    pub size: AtomicUsize,
    /// Of the block that began there then; 0: none did.
    pub cell: AtomicU32,
}

impl Alternate {
    pub fn range(&self) -> AddrRange {
        let (start, size) = (self.start.load(Relaxed), self.size.load(Relaxed));
        AddrRange::new(start, start.saturating_add(size))
    }
}

/// One thread's state. Only its own thread changes it; the snapshot child reads `tid`, `moving` and `alternate`.
#[repr(C)]
pub struct Thread {
    /// The walk's buffers are in use: a signal handler that allocates meanwhile gets no stack.
    pub walking: Cell<bool>,
    /// Calls until the clock is looked at.
    pub ticks: Cell<u32>,
    pub tid: AtomicU32,
    pub stack: Cell<OwnStack>,
    pub operator: Note,
    pub moving: Moving,
    pub alternate: Alternate,
    pub sampler: Sampler,
    pub trace: Cell<Trace>,
    pub ids: Ids<IDS>,
    pub nodes: NodeCache,
    /// Stacks taken, up to [`WARM`]; then the memo, if there is one. 0: none.
    stacks: Cell<u32>,
    memo: Cell<usize>,
    rounds: Cell<u32>,
    /// The next block in the list of free ones.
    next: Cell<usize>,
    /// Free blocks, where the bundled allocator is in place.
    pub cache: Cache,
}

// SAFETY: all fields are valid when zero (`false`, 0 and empty).
unsafe impl Zeroed for Thread {}

/// A thread has a memo from this stack on: short threads do without.
const WARM: u32 = 256;
/// Threads that have one; those beyond walk.
const MEMOS: u32 = 1024;
static MEMOS_MADE: AtomicU32 = AtomicU32::new(0);

impl Thread {
    /// The thread's memo of stacks, if it has one already: never unmapped, and only for the thread itself, while it holds `walking`.
    #[inline(always)]
    pub fn memo_so_far(&self) -> Option<NonNull<Memo>> {
        NonNull::new(self.memo.get() as *mut Memo)
    }
    /// The same, made if it is time for it.
    pub fn memo(&self) -> Option<NonNull<Memo>> {
        self.memo_so_far().or_else(|| self.warm_up())
    }

    #[inline(never)]
    fn warm_up(&self) -> Option<NonNull<Memo>> {
        let stacks = self.stacks.get() + 1;
        if !RETURN_BELOW_CFA || stacks < WARM {
            self.stacks.set(stacks);
            return None;
        }
        // Where it is refused, it is asked for again after as many more.
        self.stacks.set(0);
        if MEMOS_MADE.load(Relaxed) >= MEMOS {
            return None;
        }
        MEMOS_MADE.fetch_add(1, Relaxed);
        let memo = NonNull::from(Memo::new()?);
        self.memo.set(memo.as_ptr() as usize);
        Some(memo)
    }
}

/// All blocks ever made, for the snapshot child, and the free ones.
struct Pool {
    free: usize,
    slabs: [usize; 1024],
    used: usize,
    /// Blocks of the last slab that were never used: not in the list yet, as that would touch them.
    fresh: usize,
}

static POOL: Lock<Pool> = Lock::from_raw(
    <leakscan_engine::lock::RawFutex as lock_api::RawMutex>::INIT,
    Pool { free: 0, slabs: [0; 1024], used: 0, fresh: 0 },
);
static KEY: AtomicU32 = AtomicU32::new(u32::MAX);

unsafe extern "C" {
    fn pthread_key_create(key: *mut u32, destructor: Option<unsafe extern "C" fn(*mut c_void)>) -> c_int;
    fn pthread_setspecific(key: u32, value: *const c_void) -> c_int;
    static __libc_stack_end: usize;
}

/// The calling thread's block, made on its first call. `None` at the very end of a thread, or without memory.
#[inline(always)]
pub fn current() -> Option<&'static Thread> {
    match thread_word() {
        0 => first(),
        GONE => None,
        // SAFETY: the word holds the address of this thread's block; blocks are never unmapped.
        block => Some(unsafe { &*(block as *const Thread) }),
    }
}

#[cold]
#[inline(never)]
fn first() -> Option<&'static Thread> {
    // Until the block stands, calls that come in between (setspecific may allocate, a signal may) go without one.
    set_thread_word(GONE);
    let Some(thread) = take_block() else {
        set_thread_word(0);
        return None;
    };
    let tid = own_tid();
    if is_first(tid) {
        // Looked at in many places before they are written.
        let start = (&raw const thread.ids).addr();
        arena::populate(AddrRange::new(start, start + size_of_val(&thread.ids) + size_of_val(&thread.nodes)));
    }
    thread.tid.store(tid, Relaxed);
    thread.stack.set(guess_stack(tid));
    thread.ticks.set(crate::trigger::TICKS);
    thread.rounds.set(0);
    thread.alternate.size.store(0, Relaxed);
    // Short threads after each other, in one block, are short threads.
    thread.stacks.set(0);
    arm(thread);
    set_thread_word(core::ptr::from_ref(thread) as usize);
    Some(thread)
}

fn own_tid() -> u32 {
    if sandbox::is_closed() { threads::own_tid() } else { sys::gettid() }
}

/// The calling thread's stack as far as it is known without asking glibc (which holds a lock where threads start).
fn guess_stack(tid: u32) -> OwnStack {
    let here = core::ptr::from_ref(&tid) as usize;
    if is_first(tid) {
        // SAFETY: ld.so sets it before any code of ours runs.
        let high = unsafe { __libc_stack_end };
        return OwnStack { low: high.saturating_sub(sys::stack_limit().min(64 << 20)), high };
    }
    let high = thread_pointer();
    OwnStack { low: here.saturating_sub(256 << 10), high }
}

/// Whether this is the number of the program's first thread.
fn is_first(tid: u32) -> bool {
    match settings::PID.load(Relaxed) {
        0 => tid == sys::getpid(),
        pid => tid == pid,
    }
}

fn take_block() -> Option<&'static Thread> {
    let mut pool = POOL.lock();
    if pool.free != 0 {
        // SAFETY: the list holds addresses of blocks in slabs that stay mapped.
        let thread = unsafe { &*(pool.free as *const Thread) };
        pool.free = thread.next.get();
        return Some(thread);
    }
    if pool.fresh == 0 {
        let slab = arena::zeroed::<Thread>(SLAB)?;
        let used = pool.used;
        *pool.slabs.get_mut(used)? = slab.as_ptr() as usize;
        pool.used += 1;
        pool.fresh = SLAB;
    }
    let slab = pool.slabs[pool.used - 1] as *const Thread;
    pool.fresh -= 1;
    // SAFETY: a slab holds SLAB blocks and stays mapped.
    Some(unsafe { &*slab.add(pool.fresh) })
}

/// Sees to it that the block comes back when the thread ends, as late as the key's destructor can.
fn arm(thread: &'static Thread) {
    let key = KEY.load(Relaxed);
    if key != u32::MAX {
        // SAFETY: the key was made by pthread_key_create; the value is only handed to our destructor.
        unsafe { pthread_setspecific(key, core::ptr::from_ref(thread).cast()) };
    }
}

unsafe extern "C" fn thread_ends(value: *mut c_void) {
    // SAFETY: the value that `arm` set: this thread's block.
    let thread = unsafe { &*value.cast::<Thread>() };
    // Other destructors may allocate after us; come again while pthreads lets us (PTHREAD_DESTRUCTOR_ITERATIONS is 4).
    thread.rounds.set(thread.rounds.get() + 1);
    if thread.rounds.get() < 3 {
        return arm(thread);
    }
    set_thread_word(GONE);
    bundled::heap().drain(&thread.cache);
    thread.tid.store(0, Relaxed);
    let mut pool = POOL.lock();
    thread.next.set(pool.free);
    pool.free = core::ptr::from_ref(thread) as usize;
}

/// Makes the key whose destructor recycles blocks. Called once, from the constructor.
pub fn init() {
    let mut key = u32::MAX;
    // SAFETY: the destructor is a plain function that lives as long as the library.
    if unsafe { pthread_key_create(&raw mut key, Some(thread_ends)) } == 0 {
        KEY.store(key, Relaxed);
        if let Some(thread) = current() {
            arm(thread);
        }
    }
}

/// The threads in which a realloc is under way at this moment. For the snapshot child.
pub fn moving() -> impl Iterator<Item = Mover> {
    let threads = all().map(|thread| Mover {
        tid: thread.tid.load(Relaxed),
        moving: &thread.moving,
        alternate: thread.alternate.range(),
    });
    let without = SPARES.iter().map(|spare| Mover {
        tid: spare.tid.load(Relaxed),
        moving: &spare.moving,
        alternate: AddrRange::default(),
    });
    threads.chain(without).filter(|mover| mover.moving.addr.load(Relaxed) != 0)
}

/// The number of a thread of the process that this one is forked from.
pub const PARENTS: u32 = u32::MAX;

/// In the child of a fork the other threads are not: nobody stands on their alternate stacks, but the parent has them in use.
pub fn forked() {
    let mine = current().map_or(core::ptr::null(), core::ptr::from_ref);
    if let Some(thread) = current() {
        thread.tid.store(sys::gettid(), Relaxed);
    }
    let has_one = |thread: &&Thread| thread.tid.load(Relaxed) != 0 && thread.alternate.size.load(Relaxed) != 0;
    // (A page that is written is copied.)
    for other in all().filter(has_one).filter(|thread| !core::ptr::eq(*thread, mine)) {
        other.tid.store(PARENTS, Relaxed);
    }
}

/// Every block that was ever used. For the snapshot child, which takes no lock.
pub fn all() -> impl Iterator<Item = &'static Thread> {
    // SAFETY: nobody writes in the child; the parent's lock may be held by a thread that is not here.
    let pool = unsafe { &*POOL.data_ptr() };
    let used = pool.used.min(pool.slabs.len());
    pool.slabs[..used].iter().enumerate().flat_map(move |(at, slab)| {
        let fresh = if at + 1 == used { pool.fresh } else { 0 };
        // SAFETY: a slab holds SLAB blocks and stays mapped; they are taken from its end.
        unsafe { core::slice::from_raw_parts((*slab as *const Thread).add(fresh), SLAB - fresh) }
    })
}

/// Whether any other thread's block is such; `false` in a handler that has interrupted who makes one, and so has the pool's lock.
pub fn is_any_other(mine: &Thread, such: impl Fn(&Thread) -> bool) -> bool {
    const TRIES: u32 = 100;
    // A handler of the program's that forks would wait for the lock for ever.
    let mask = crate::trigger::block_signals();
    let is_other = |other: &Thread| other.tid.load(Relaxed) != 0 && !core::ptr::eq(other, mine) && such(other);
    let found = (0..TRIES).find_map(|_| match POOL.try_lock() {
        Some(_held) => Some(all().any(is_other)),
        None => {
            sys::sleep_ns(1000);
            None
        }
    });
    crate::trigger::restore_signals(mask);
    found.unwrap_or(false)
}

/// Holds the pool over a fork.
pub fn before_fork() {
    core::mem::forget(POOL.lock());
}

/// Gives it back.
///
/// # Safety
/// Pairs with [`before_fork`] in the thread that forked.
pub unsafe fn after_fork() {
    // SAFETY: `before_fork` left it locked by this thread.
    unsafe { POOL.force_unlock() };
}
