//! Libraries whose blocks know others by how far behind them these begin. fontconfig does: so its patterns and sets may lie in a mapped file
//! as well as in blocks.
//!
//! Whose a block is its stack says. Under sampling most have none: so all blocks get theirs that are made in such a library, if it is there
//! when the program starts. Where it comes later, whatever has no stack may be its.
#![allow(unsafe_code)] // reads the return address at the caller's stack pointer

use crate::real;
use crate::state::{SAMPLE, TRACKER, UNWINDER};
use crate::symbols::Search;
use core::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use leakscan_engine::AddrRange;
use leakscan_engine::record::live_map::Cell;

/// Where such a library lay when a program that is sampled started; 0: nowhere.
static START: AtomicUsize = AtomicUsize::new(0);
static LEN: AtomicUsize = AtomicUsize::new(0);

fn library() -> AddrRange {
    Search::new().address(c"FcPatternCreate").and_then(real::mapped_file).unwrap_or_default()
}

/// For the constructor of a program that is sampled. Whether there is such a library.
pub fn look() -> bool {
    let library = library();
    START.store(library.start, Relaxed);
    LEN.store(library.len(), Relaxed);
    !library.is_empty()
}

/// Whether an allocation function is called from there. `sp`: the stack pointer at its entry.
#[inline(always)]
pub fn are_made_by(sp: usize) -> bool {
    // SAFETY: there the call instruction has put the return address.
    let pc = unsafe { *(sp as *const usize) };
    pc.wrapping_sub(START.load(Relaxed)) < LEN.load(Relaxed)
}

/// Where such a library is loaded; empty: nowhere.
#[derive(Clone, Copy)]
pub struct Offsets {
    library: AddrRange,
    /// Of a block that has no stack nobody knows whose it is.
    unknown: bool,
}

impl Offsets {
    pub fn find() -> Self {
        let library = library();
        let unknown = SAMPLE.load(Relaxed) != 0 && START.load(Relaxed) != library.start;
        Self { library, unknown }
    }

    /// Whether a block holds such: one that was made there. (In others small numbers would be distances to the blocks behind.)
    pub fn are_in(self, cell: Cell) -> bool {
        if self.library.is_empty() {
            return false;
        }
        let Some(stack) = cell.stack() else { return self.unknown };
        let maker = TRACKER.depot.frames(stack).iter().next().and_then(|frame| UNWINDER.frames.get(frame));
        maker.is_some_and(|maker| self.library.contains(maker.address()))
    }
}
