//! Where an allocator's memory lies: what is no block there is no root.
#![allow(unsafe_code)] // reads the copied memory

use crate::child::Stopped;
use crate::gather::MEMORY;
use crate::{bundled, regions, symbols};
use leakscan_engine::AddrRange;
use leakscan_engine::arena::{self, List};
use leakscan_engine::scan::blocks::SizeOf;
use leakscan_engine::scan::maps::Mapping;
use leakscan_engine::scan::mark::{How, Marker};
use leakscan_engine::scan::resident::Pages;
use leakscan_engine::scan::roots::{self, ARENA_WORDS, Resident};
use leakscan_engine::sys;

/// glibc's memory outside `[heap]`: the heaps of its other arenas, and large blocks that are mapped by themselves.
pub fn allocator_memory<S: SizeOf>(
    marker: &Marker<'_, '_, S>,
    pages: &mut Pages,
    mappings: &[Mapping<'_>],
    mut each: impl FnMut(AddrRange) -> Result<(), Stopped>,
) -> Result<(), Stopped> {
    let mut parts: List<AddrRange> = List::new();
    let heaps = heaps_of_blocks(marker, pages, mappings, &mut parts).ok_or(MEMORY)?;
    heaps.iter().chain(parts.iter()).try_for_each(|heap| each(*heap))?;
    // And those without a block.
    let most = if has_tunable(b"glibc.malloc.hugetlb=2") { roots::HEAP_OF_LARGE_PAGES } else { roots::HEAP };
    let step = heaps.iter().fold(most, |step, heap| step.min(1 << heap.start.trailing_zeros()));
    for mapping in
        mappings.iter().filter(|mapping| mapping.is_anonymous() && mapping.read && mapping.write && !mapping.shared)
    {
        let mut at = mapping.range.start.next_multiple_of(step);
        while at + 32 <= mapping.range.end {
            if !heaps.iter().any(|heap| heap.start == at)
                && let Some(heap) = heap_at(at, pages)
            {
                each(heap)?;
            }
            at += step;
        }
    }
    // A mapped chunk begins a page; its block comes 16 bytes later, or at an alignment that was asked for: a power of two.
    let may_be = |within_page: usize| within_page == 0 || within_page.is_power_of_two();
    let theirs = |block: &usize| may_be(block % 4096) && !bundled::heap().contains(*block);
    for block in marker.blocks.iter().filter(theirs) {
        // SAFETY: a block of glibc's has its chunk header before it: what lies before the chunk, and its size and flags.
        let (before, header) = unsafe { (*((block - 16) as *const usize), *((block - 8) as *const usize)) };
        if header & 2 != 0 && header >> 46 == 0 && before >> 46 == 0 {
            let chunk = AddrRange::new(block - 16 - before, block - 16 + (header & !7));
            if chunk.start.is_multiple_of(4096) && chunk.end.is_multiple_of(4096) {
                each(chunk)?;
            }
        }
    }
    Ok(())
}

/// Another allocator's memory, as far as blocks show where it is: 32 KiB around each.
pub fn granules<'m, S: SizeOf>(marker: &'m Marker<'_, '_, S>) -> impl Iterator<Item = AddrRange> + 'm {
    const GRANULE: usize = 32 << 10;
    let mut last = usize::MAX;
    marker.blocks.iter().filter_map(move |block| {
        let start = block & !(GRANULE - 1);
        let end = (block + marker.blocks.usable(block)).next_multiple_of(GRANULE);
        let new = start != last || end > start + GRANULE;
        last = start;
        new.then_some(AddrRange::new(start, end))
    })
}

/// Whether a file of the program calls functions of another allocator's own that do not come to us: mimalloc's, tcmalloc's, tbbmalloc's.
pub fn are_made_past_us() -> bool {
    const OWN: [&[u8]; 3] = [b"mi_", b"tc_", b"scalable_"];
    symbols::any_refers(regions::allocator(), |name| OWN.iter().any(|own| name.starts_with(own)))
}

/// Takes all of another allocator's memory that is no block of ours for roots. `None` without memory.
///
/// # Safety
/// As for [`Marker::root_range`]. `ranges` are in order, and apart.
pub unsafe fn root_others_blocks<S: SizeOf>(
    marker: &mut Marker<'_, '_, S>,
    pages: &mut Pages,
    ranges: &[AddrRange],
) -> Option<()> {
    let mut gaps: List<AddrRange> = List::new();
    let mut blocks = marker.blocks.iter().peekable();
    let mut from = 0;
    for range in ranges {
        from = range.start.max(from);
        while let Some(block) = blocks.next_if(|block| *block < range.end) {
            if block > from && !gaps.push(AddrRange::new(from, block)) {
                return None;
            }
            from = from.max(block + marker.blocks.usable(block));
        }
        if from < range.end {
            gaps.push(AddrRange::new(from, range.end)).then_some(())?;
        }
    }
    drop(blocks);
    for &gap in gaps.iter() {
        // SAFETY: by this function's own contract.
        pages.each(gap, Resident::Private, |run| unsafe { marker.root_range(run, How::default()) });
    }
    Some(())
}

/// Whether the program was started with this among GLIBC_TUNABLES.
fn has_tunable(tunable: &[u8]) -> bool {
    let Some(buffer) = arena::zeroed::<u8>(64 << 10) else { return false };
    let Ok(environment) = sys::read_file(c"/proc/self/environ", buffer) else { return false };
    let mut variables = environment.split(|&byte| byte == 0).filter_map(|line| line.strip_prefix(b"GLIBC_TUNABLES="));
    variables.any(|tunables| tunables.windows(tunable.len()).any(|window| window == tunable))
}

/// The heaps of glibc's arenas that live blocks are in. The first arena's goes on in mappings where `[heap]` cannot grow: of these, what lies
/// between two live blocks is added to `parts`. `None` without memory.
fn heaps_of_blocks<S: SizeOf>(
    marker: &Marker<'_, '_, S>,
    pages: &mut Pages,
    mappings: &[Mapping<'_>],
    parts: &mut List<AddrRange>,
) -> Option<List<AddrRange>> {
    let main =
        mappings.iter().find(|mapping| mapping.path == b"[heap]").map_or(AddrRange::default(), |heap| heap.range);
    let (mut heaps, mut last, mut tries): (List<AddrRange>, _, _) = (List::new(), AddrRange::default(), 64);
    for block in marker.blocks.iter() {
        if main.contains(block) || last.contains(block) || bundled::heap().contains(block) {
            continue;
        }
        // SAFETY: a block of glibc's has its chunk header before it. Flag 2: mapped by itself; 4: of another arena than the first.
        let header = unsafe { *((block - 8) as *const usize) };
        if header & 6 == 0 && header >> 46 == 0 {
            let chunk = AddrRange::new(block - 16, block - 16 + (header & !7));
            match parts.last_mut().filter(|part| leads_to(part.end, chunk.start)) {
                Some(part) => part.end = chunk.end,
                None => parts.push(chunk).then_some(())?,
            }
        }
        if header & 6 != 4 {
            continue;
        }
        // Each begins at a multiple of the most that it may be, which a tunable sets.
        let mut starts = (18..=32).map(|shift| block & !((1 << shift) - 1));
        match starts.find_map(|start| heap_at(start, pages).filter(|heap| heap.contains(block))) {
            Some(heap) => {
                heaps.push(heap).then_some(())?;
                last = heap;
            }
            None if tries == 0 => break,
            None => tries -= 1,
        }
    }
    Some(heaps)
}

/// Whether chunk after chunk, of which each says its size, the second place follows on the first. (A part ends with one that is
/// smaller than any.)
fn leads_to(mut at: usize, chunk: usize) -> bool {
    const SMALLEST: usize = 32;
    while at < chunk {
        // SAFETY: behind a chunk comes another one's header; where a page cannot be read, an empty one takes its place.
        let size = unsafe { *((at + 8) as *const usize) } & !7;
        if size < SMALLEST || size > chunk - at {
            return false;
        }
        at += size;
    }
    at == chunk
}

/// The heap that begins here, as far as it was ever in use, if there is one.
fn heap_at(at: usize, pages: &mut Pages) -> Option<AddrRange> {
    // A reservation of terabytes would get a page at each of these places by our looking at it.
    if !pages.exists(at) {
        return None;
    }
    // SAFETY: there is a page of private memory. (Where it cannot be read, an empty one takes its place.)
    let words = unsafe { *(at as *const [usize; 4]) };
    let arena = words[0];
    let last = arena.wrapping_add(ARENA_WORDS * 8 - 1);
    if !roots::looks_like_heap(at, words) || !pages.exists(arena) || !pages.exists(last) {
        return None;
    }
    // SAFETY: as above.
    let state = unsafe { core::slice::from_raw_parts(arena as *const usize, ARENA_WORDS) };
    roots::is_arena(arena, state).then(|| AddrRange::new(at, at + words[3]))
}
