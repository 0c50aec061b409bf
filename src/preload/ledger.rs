//! What the snapshot child leaves to the program and to the next child: in memory that they share.
//!
//! One per process, made at its first scan. A child writes into places that count only when it has ended well.
#![allow(unsafe_code)] // places the shared structures in mapped memory

use core::sync::atomic::{
    AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering::Acquire, Ordering::Relaxed, Ordering::Release,
};
use leakscan_engine::arena;
use leakscan_engine::record::live_map::MAX_STACKS;
use leakscan_engine::record::wanted::Wanted;
use leakscan_engine::scan::fold::Seen;

/// Blocks that are kept from scan to scan; those beyond cannot be confirmed, and the report says so.
pub const SEEN: usize = 1 << 20;

/// See the module.
#[repr(C)]
pub struct Ledger {
    /// Number of the last whole scan.
    pub scan: AtomicU32,
    /// Length of the report file up to that scan's end, and which file that is. 0: none yet.
    pub whole: AtomicU64,
    pub device: AtomicU64,
    pub inode: AtomicU64,
    /// How far the running child is, and the error number that stopped it: see `child::Step`.
    pub step: AtomicU32,
    pub errno: AtomicU32,
    /// Microseconds that the threads stood still; 0 while that is not known.
    pub pause_us: AtomicU64,
    /// Which of the two lists of seen blocks is the last whole scan's, and how long each is.
    pub current: AtomicU32,
    pub seen: [AtomicU32; 2],
    /// Scans that failed since the last whole one, and the step and error of the last of them.
    pub failed: AtomicU32,
    pub failed_step: AtomicU32,
    pub failed_errno: AtomicU32,
    /// The child has done what it will do, well or not; it only has to end.
    pub over: AtomicU32,
    /// A scan was asked for meanwhile: the child asks for it again at its end, since an idle program would not.
    pub pending: AtomicU32,
    /// The copy lacked memory that the program was not known to keep from its forks.
    pub keeps_from_forks: AtomicU32,
    /// The child has read what a fork leaves out; the program has gone on.
    pub copied: AtomicU32,
    pub released: AtomicU32,
    /// The program has come out of the stop.
    pub went_on: AtomicU32,
    /// A failure to write has been told on stderr.
    pub told: AtomicU32,
    /// Under sampling: sizes of lost blocks without a stack.
    pub wanted: Wanted,
}

/// The ledger and what belongs to it.
#[derive(Clone, Copy)]
pub struct Shared {
    pub ledger: &'static Ledger,
    lists: usize,
    written: usize,
}

static LEDGER: AtomicUsize = AtomicUsize::new(0);
const LISTS: usize = 4096;
const WRITTEN: usize = LISTS + 2 * SEEN * size_of::<Seen>();
const LEN: usize = WRITTEN + MAX_STACKS as usize / 8 + 1;

/// The ledger is the process's alone: no child has been made yet. (Memory that is shared takes the kernel twice the work.)
static ALONE: AtomicBool = AtomicBool::new(false);

/// The process's ledger, made now if there is none, for a child to share. `None` without memory.
///
/// # Safety
/// Nobody else has [`get`] or [`get_alone`] under way or keeps what they gave.
pub unsafe fn share() -> Option<Shared> {
    let alone = LEDGER.load(Acquire);
    if alone == 0 || ALONE.load(Relaxed) {
        let shared = arena::map_shared(LEN)?.start;
        if alone != 0 {
            // SAFETY: both are of LEN bytes. While it was alone, nothing but the ledger itself was written.
            unsafe { core::ptr::copy_nonoverlapping(alone as *const u8, shared as *mut u8, size_of::<Ledger>()) };
        }
        LEDGER.store(shared, Release);
        ALONE.store(false, Relaxed);
        // SAFETY: by this function's own contract.
        unsafe { unmap(alone) };
    }
    get()
}

/// The process's ledger, made now if there is none, which no child is to know.
pub fn get_alone() -> Option<Shared> {
    if !exists() {
        LEDGER.store(arena::in_small_pages(arena::map(LEN)?).start, Release);
        ALONE.store(true, Relaxed);
    }
    get()
}

/// The process's ledger, if there is one.
pub fn get() -> Option<Shared> {
    let at = LEDGER.load(Acquire);
    // SAFETY: the mapping is LEN zeroed bytes, which are a ledger; it is unmapped only in the child of a fork, and by `share`.
    (at != 0).then(|| Shared { ledger: unsafe { &*(at as *const Ledger) }, lists: at + LISTS, written: at + WRITTEN })
}

/// Whether there is one: a scan was asked for.
pub fn exists() -> bool {
    LEDGER.load(Acquire) != 0
}

/// After a fork the ledger is the parent's: the child begins its own.
pub fn forget() {
    // SAFETY: the forked child has one thread, and it is here.
    unsafe { unmap(LEDGER.swap(0, Release)) };
    ALONE.store(false, Relaxed);
}

/// # Safety
/// `at` is a ledger's address or 0, and nobody uses it.
unsafe fn unmap(at: usize) {
    if at != 0 {
        let range = leakscan_engine::AddrRange::new(at, at + LEN.next_multiple_of(4096));
        // SAFETY: by this function's own contract.
        unsafe { arena::unmap(range) };
    }
}

impl Shared {
    /// The blocks that the last whole scan found unreachable, by address.
    pub fn seen(&self) -> &'static [Seen] {
        let which = self.ledger.current.load(Acquire) as usize & 1;
        let len = (self.ledger.seen[which].load(Acquire) as usize).min(SEEN);
        // SAFETY: the list lies in the mapping; the child that reads it does not write this one.
        unsafe { core::slice::from_raw_parts((self.lists + which * SEEN * size_of::<Seen>()) as *const Seen, len) }
    }

    /// The place for this scan's, to be published by [`Shared::publish`].
    pub fn next_seen(&self) -> &'static mut [Seen] {
        let which = 1 - (self.ledger.current.load(Acquire) as usize & 1);
        // SAFETY: the list lies in the mapping; one child runs at a time, and nobody reads this list before it is published.
        unsafe { core::slice::from_raw_parts_mut((self.lists + which * SEEN * size_of::<Seen>()) as *mut Seen, SEEN) }
    }

    /// Makes the next list the current one.
    pub fn publish(&self, len: usize) {
        let which = 1 - (self.ledger.current.load(Acquire) & 1);
        self.ledger.seen[which as usize].store(len as u32, Release);
        self.ledger.current.store(which, Release);
    }

    /// One bit per stack id: its definition stands in the file.
    pub fn written(&self) -> &'static mut [u8] {
        // SAFETY: the bytes lie in the mapping; one child runs at a time, and the program touches them only between children.
        unsafe { core::slice::from_raw_parts_mut(self.written as *mut u8, MAX_STACKS as usize / 8 + 1) }
    }
}
