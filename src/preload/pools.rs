//! What programs hold to be free or dead in memory that they manage by themselves ([`leakscan_engine::scan::pools`]), by the names that
//! their symbols give them away by.
#![allow(unsafe_code)] // reads and, in the copy, clears words of live blocks

use crate::snapshot;
use crate::symbols::Search;
use leakscan_engine::AddrRange;
use leakscan_engine::arena::List;
use leakscan_engine::scan::blocks::{Blocks, SizeOf};
use leakscan_engine::scan::pools::{gcc, perl};
use leakscan_engine::scan::resident::Pages;

/// Whether something of what a plain reading takes for pointers is told apart here.
pub fn are_known() -> bool {
    let search = Search::new();
    is_perl(&search) || is_gcc(&search)
}

fn is_perl(search: &Search) -> bool {
    search.address(c"perl_destruct").is_some()
}

/// A compiler of GCC's (they export their names to plugins): `ggc_free(void *)`.
fn is_gcc(search: &Search) -> bool {
    search.address(c"_Z8ggc_freePv").is_some()
}

/// The parts of the collector's pages that hold nothing, given to `each`; and its list of pages ends in the index of blocks where it ends
/// for the collector. For a scan at the end, which was no signal's: in the midst of the program a collection may be under way.
pub fn leave_out_gccs_garbage<S: SizeOf>(blocks: &mut Blocks<'_, S>, mut each: impl FnMut(AddrRange)) {
    /// The list grows by doubling, from some hundred entries on.
    const LEAST: usize = 1024;
    if !is_gcc(&Search::new()) {
        return;
    }
    let size_of = |at: usize| blocks.is_start(at).then(|| blocks.requested(at));
    // SAFETY: asked for words of live blocks only.
    let word = |at: usize| unsafe { *(at as *const usize) };
    let found = blocks.iter().find_map(|block| {
        let size = blocks.requested(block);
        let list = AddrRange::new(block, block + size);
        let mut free: List<AddrRange> = List::new();
        let mut all = size >= LEAST && size.is_multiple_of(8);
        let used = if all { gcc::garbage(list, size_of, word, |run| all &= free.push(run)) } else { None };
        used.filter(|_| all).map(|used| (block, used, free))
    });
    if let Some((block, used, free)) = found {
        blocks.shorten(block, used);
        free.iter().for_each(|range| each(*range));
    }
}

/// What perl's free heads still point to is cleared.
///
/// # Safety
/// In the snapshot child.
pub unsafe fn clear_perls_free_heads<S: SizeOf>(pages: &mut Pages, blocks: &Blocks<'_, S>) {
    if !is_perl(&Search::new()) {
        return;
    }
    let arena_of = |at: usize| {
        let (block, _) = blocks.find(at).filter(|(block, _)| blocks.requested(*block) == perl::ARENA)?;
        Some(AddrRange::new(block, block + perl::ARENA)).filter(|arena| at.is_multiple_of(8) && at + 8 <= arena.end)
    };
    // SAFETY: in a live block.
    let word = |at: usize| arena_of(at).map(|_| unsafe { *(at as *const usize) });
    for arena in blocks.iter().filter_map(arena_of) {
        let mut stale: List<usize> = List::new();
        perl::stale_words(arena, word, |at| _ = stale.push(at));
        if !stale.is_empty() {
            snapshot::copy_is_needed();
            pages.each_own(arena, |own| {
                for &at in stale.iter().filter(|at| own.contains(**at)) {
                    // SAFETY: by this function's own contract; in a live block, whose page is this process's own.
                    unsafe { *(at as *mut usize) = 0 };
                }
            });
        }
    }
}
