//! Allocation stacks without frame pointers: exact, by the unwind tables of the loaded files, cheap enough for every malloc.
//!
//! Called from inside malloc on any thread: allocates nothing, takes no lock, reads nothing but the stack and the mapped
//! unwind tables. Three layers: a *rule* is what `.eh_frame` says about one return address, packed into 8 bytes ([`Rule`]);
//! the *link* walk ([`walk`]) keeps each rule in the frame dictionary beside the caller that was seen last, so that a stack
//! that was seen before costs a predicted pointer chase; a thread's [`memo`] finds whole stacks and parts of stacks again.

mod cfi;
mod compile;
pub mod memo;
pub mod walk;

#[cfg(target_arch = "aarch64")]
#[path = "aarch64.rs"]
mod arch;
#[cfg(target_arch = "x86_64")]
#[path = "x86_64.rs"]
mod arch;

pub use arch::{RETURN_BELOW_CFA, Rule};

use crate::record::frames::Frames;
use crate::sys::USER_BITS;
use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

/// The loaded file that holds an address.
#[derive(Clone, Copy, Debug)]
pub struct Object {
    /// Address of its `.eh_frame_hdr`; 0 if it has none.
    pub eh_frame_hdr: usize,
    /// Start and end of its mapping.
    pub start: usize,
    pub end: usize,
}

/// Finds the loaded file that holds an address, without locks and without allocating (glibc's `_dl_find_object`).
pub type FindObject = fn(pc: usize) -> Option<Object>;

/// The unwinder of one process.
#[repr(C)] // what is used first lies in the first page
pub struct Unwinder {
    /// A [`FindObject`]; 0 until the door has set it, and then no address has a rule.
    find: AtomicUsize,
    /// Return addresses whose tables say something that a packed rule cannot hold; stacks end there.
    unsupported: AtomicU64,
    pub frames: Frames,
}

impl Default for Unwinder {
    fn default() -> Self {
        Self::new()
    }
}

impl Unwinder {
    pub const fn new() -> Self {
        Self { find: AtomicUsize::new(0), unsupported: AtomicU64::new(0), frames: Frames::new() }
    }

    /// Addresses whose unwind tables were too unusual.
    pub fn unsupported(&self) -> u64 {
        self.unsupported.load(Relaxed)
    }
}

/// Where a walk begins: the caller of the allocation function, as it is after that function returned.
#[derive(Clone, Copy, Debug)]
pub struct Start {
    /// Return address.
    pub pc: usize,
    pub sp: usize,
    /// Frame pointer register, whatever the caller uses it for.
    pub fp: usize,
}

/// The thread's own stack. Another stack (a coroutine's, an alternate signal stack) is walked by unwind tables alone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OwnStack {
    pub low: usize,
    pub high: usize,
}

impl OwnStack {
    /// How far up a walk at `sp` may read, and whether that is the thread's own stack.
    fn limit(self, sp: usize) -> (usize, bool) {
        // The outermost frame's caller has the end itself for its stack pointer.
        if self.low <= sp && sp <= self.high { (self.high, true) } else { ((1 << USER_BITS) - 4096, false) }
    }
}

impl Unwinder {
    /// Whether a frame's code has no unwind table, so that only its frame pointer could be followed.
    pub fn is_without_table(&self, node: &crate::record::frames::Node) -> bool {
        [Rule::NO_TABLE.0, Rule::NO_OBJECT.0].contains(&node.rule.load(Relaxed))
    }
}
