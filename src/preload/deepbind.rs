//! Libraries whose calls of malloc and free do not come to us: loaded with RTLD_DEEPBIND (PHP's extensions), or by dlmopen into
//! a namespace of their own.
//!
//! By default they stay as the program wants them. Then a block that they free past us is still in the live map, and one that
//! they have made is not: the scan tells the first by glibc's books, and takes what lies between our blocks for roots.
#![allow(unsafe_code)] // reads glibc's chunk headers

use crate::state::FOREIGN_ALLOCATOR;
use crate::{bundled, real, settings};
use core::ffi::c_int;
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};
use leakscan_engine::AddrRange;
use leakscan_engine::arena::{self, List};
use leakscan_engine::scan::blocks::{Blocks, SizeOf};
use leakscan_engine::scan::mark::{How, Marker};
use leakscan_engine::scan::resident::Pages;
use leakscan_engine::scan::roots::Resident;

const RTLD_DEEPBIND: c_int = 8;

/// Calls of dlopen and dlmopen that may have brought such a library.
pub static LOADED: AtomicU64 = AtomicU64::new(0);

/// Before glibc 2.34 the functions may be in no loaded library.
fn known() {
    extern "C" fn missing() -> usize {
        0
    }
    real::ready();
    for slot in [&real::DLOPEN, &real::DLMOPEN] {
        let _ = slot.compare_exchange(0, missing as *const () as usize, Relaxed, Relaxed);
    }
}

/// dlopen with RTLD_DEEPBIND is about to be called (or any before the real one is known): gives the mode to call it with.
pub extern "C" fn opening(_file: usize, mode: c_int) -> c_int {
    known();
    if mode & RTLD_DEEPBIND == 0 {
        return mode;
    }
    if settings::get().is_some_and(|settings| !settings.options.deepbind) {
        return mode & !RTLD_DEEPBIND;
    }
    LOADED.fetch_add(1, Relaxed);
    mode
}

/// dlmopen is about to be called.
pub extern "C" fn opening_apart(namespace: isize, mode: c_int) -> c_int {
    if namespace == 0 {
        return opening(0, mode);
    }
    known();
    LOADED.fetch_add(1, Relaxed);
    mode
}

/// Whether glibc's books say that the block at `addr` is free.
///
/// # Safety
/// The block is in the live map, and a fault handler repairs pages that cannot be read.
unsafe fn is_free<S: SizeOf>(blocks: &Blocks<'_, S>, addr: usize) -> bool {
    // Unmapped, and mapped anew by us since.
    if arena::own_ranges().any(|range| range.contains(addr)) {
        return true;
    }
    if bundled::heap().contains(addr) {
        return false;
    }
    // SAFETY: glibc keeps the size, and whether the chunk before is in use (bit 0), in the word before each block.
    let header = |block: usize| unsafe { *((block - 8) as *const usize) };
    let size = header(addr) & !7;
    if header(addr) & 2 != 0 {
        return false;
    }
    // Unmapped, or inside a block that has been made since.
    let below = blocks.find(addr - 9).is_some_and(|(block, _)| block + blocks.usable(block) > addr - 8);
    if size < 32 || below {
        return true;
    }
    // Lists of small free blocks: the next one, xored with the own address (safe-linking, glibc 2.32), or none.
    // SAFETY: the block's own first word.
    let next = unsafe { *(addr as *const usize) } ^ addr >> 12;
    let same_list =
        |block: usize| block.is_multiple_of(16) && block.abs_diff(addr) < 1 << 30 && header(block) & !7 == size;
    size >> 46 != 0 || header(addr + size) & 1 == 0 || next == 0 || same_list(next) || same_list(next + 16)
}

/// Marks the would-be leaks that were freed past us. Gives how many there were.
///
/// # Safety
/// As for `is_free`.
pub unsafe fn mark_freed<S: SizeOf>(blocks: &mut Blocks<'_, S>) -> Option<usize> {
    if LOADED.load(Relaxed) == 0 || FOREIGN_ALLOCATOR.load(Relaxed) {
        return Some(0);
    }
    let mut freed: List<usize> = List::new();
    // A free chunk may have swallowed those behind it; what is left of their headers says nothing.
    let mut swallowed = 0;
    for block in blocks.unmarked() {
        // SAFETY: by this function's own contract.
        if block < swallowed || unsafe { is_free(blocks, block) } {
            swallowed = swallowed.max(block + blocks.usable(block));
            freed.push(block).then_some(())?;
        }
    }
    freed.iter().for_each(|block| _ = blocks.mark(*block));
    Some(freed.len())
}

/// Takes what lies between our blocks in a range of glibc's for roots. `None` without memory.
///
/// # Safety
/// As for `is_free` and [`Marker::root_range`].
pub unsafe fn root_gaps<S: SizeOf>(marker: &mut Marker<'_, '_, S>, pages: &mut Pages, range: AddrRange) -> Option<()> {
    /// glibc's smallest chunk.
    const CHUNK: usize = 32;
    let mut gaps: List<AddrRange> = List::new();
    let mut from = range.start;
    let inside = marker.blocks.iter().skip_while(|block| *block < range.start).take_while(|block| *block < range.end);
    for block in inside.chain([range.end]) {
        if block.saturating_sub(from) >= CHUNK {
            gaps.push(AddrRange::new(from, block)).then_some(())?;
        }
        // SAFETY: by this function's own contract.
        let free = block == range.end || unsafe { is_free(marker.blocks, block) };
        from = from.max(if free { block } else { block + marker.blocks.usable(block) });
    }
    for &gap in gaps.iter() {
        pages.each(gap, Resident::Private, |run| {
            // Lists of free chunks point to their neighbours' ends.
            let how = How { exact_only: true, unaligned: false };
            // SAFETY: by this function's own contract.
            unsafe { marker.root_range(run, how) };
        });
    }
    Some(())
}
