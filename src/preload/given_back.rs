//! Pages that the program has given back (MADV_FREE) and not written to since: the kernel takes them when it likes, so that what they
//! hold keeps nothing.
//!
//! The kernel says of a mapping how much of it that is, and not where. So the copy's mappings are taken apart, until each is given back
//! as a whole or not at all. Whatever the program has written since counts, as the kernel looks at the pages' own marks.
#![allow(unsafe_code)] // lets go of the copy's memory

use crate::{regions, snapshot};
use core::sync::atomic::Ordering::Relaxed;
use leakscan_engine::AddrRange;
use leakscan_engine::arena::{self, List};
use leakscan_engine::scan::smaps::Parser;
use leakscan_engine::sys::{self, nr};

const PAGE: usize = 4096;
const PIECE: usize = 64 * PAGE;
/// Mappings at a time. (A process may have 65,530.)
const PIECES: usize = 1 << 14;
/// What is not looked at for its number is read like any other memory.
const ROUNDS: usize = 16;

/// # Safety
/// In a copy of the program, where nobody needs such pages.
pub unsafe fn clear() {
    if !regions::GIVEN_BACK.load(Relaxed) {
        return;
    }
    snapshot::copy_is_needed();
    let Some(buffer) = arena::zeroed::<u8>(64 << 10) else { return };
    // Until this processor has done so, the kernel has not told its books of the last ones: an unmapping makes it.
    if let Some(range) = arena::map(PAGE) {
        // SAFETY: just mapped, and nobody's.
        unsafe { arena::unmap(range) };
    }
    // SAFETY: by this function's own contract, as below.
    let mut partly = unsafe { let_go(AddrRange::new(0, usize::MAX), buffer) };
    for size in [PIECE, PAGE] {
        let mut rest = List::new();
        let mut pieces = partly.iter().flat_map(|range| {
            let starts = (range.start..range.end).step_by(size);
            starts.map(|start| AddrRange::new(start, range.end.min(start + size)))
        });
        for _ in 0..ROUNDS {
            let (mut first, mut end, mut odd) = (usize::MAX, 0, false);
            for piece in pieces.by_ref().take(PIECES) {
                advise(piece, odd);
                (first, end, odd) = (first.min(piece.start), piece.end, !odd);
            }
            if end == 0 {
                break;
            }
            let looked_at = AddrRange::new(first, end);
            // SAFETY: as above.
            let still = unsafe { let_go(looked_at, buffer) };
            still.iter().for_each(|range| _ = rest.push(*range));
            partly.iter().filter(|range| range.overlaps(looked_at)).for_each(|range| advise(*range, true));
        }
        partly = rest;
    }
}

/// Whether a core file would have it: what tells mappings apart, and means nothing in a process without core files.
fn advise(range: AddrRange, dump: bool) {
    const MADV_DONTDUMP: usize = 16;
    const MADV_DODUMP: usize = 17;
    let advice = if dump { MADV_DODUMP } else { MADV_DONTDUMP };
    // SAFETY: changes no memory.
    let _ = unsafe { sys::call(nr::MADVISE, [range.start, range.len(), advice, 0, 0, 0]) };
}

/// Lets go of mappings whose pages are all given back; gives those of which some are.
///
/// # Safety
/// As for [`clear`].
unsafe fn let_go(within: AddrRange, buffer: &mut [u8]) -> List<AddrRange> {
    let (mut partly, mut parser) = (List::new(), Parser::default());
    let Ok(file) = sys::open(c"/proc/self/smaps", sys::O_RDONLY, 0) else { return partly };
    while let Ok(read @ 1..) = file.read(buffer) {
        parser.take(&buffer[..read], |found| {
            if !found.range.overlaps(within) {
            } else if found.all {
                // SAFETY: by this function's own contract.
                let _ = unsafe { sys::forget(found.range.start, found.range.len()) };
            } else {
                let _ = partly.push(found.range);
            }
        });
    }
    partly
}
