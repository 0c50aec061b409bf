//! What the root policy wants to know of the address space beside the mappings themselves. For the snapshot child.
#![allow(unsafe_code)] // reads libc's data

use crate::child::Stopped;
use crate::gather::MEMORY;
use crate::{real, regions, taken_in};
use leakscan_engine::AddrRange;
use leakscan_engine::arena::{self, List};
use leakscan_engine::scan::maps::Mapping;
use leakscan_engine::scan::roots;

/// Parts of `[heap]` that are the program's own: from sbrk and brk, and what the kernel calls the heap, but glibc has never got, by brk as a
/// system call or a mapping right behind. `None` without memory.
pub fn programs_heap(mappings: &[Mapping<'_>], excluded: &[AddrRange]) -> Option<List<AddrRange>> {
    let mut parts: List<AddrRange> = List::new();
    let mut all = regions::SBRK.iter().all(|range| parts.push(range));
    for heap in mappings.iter().filter(|mapping| mapping.path == b"[heap]") {
        let beyond = AddrRange::new(heap.range.start.max(real::sbrk(0).next_multiple_of(16)), heap.range.end);
        roots::subtract(beyond, excluded, |part| all &= parts.push(part));
    }
    all.then_some(parts)
}

/// The states of the main arenas of each glibc that is loaded. `None` without memory.
pub fn arenas(mappings: &[Mapping<'_>]) -> Option<List<AddrRange>> {
    let mut arenas: List<AddrRange> = List::new();
    let is_libcs =
        |mapping: &&Mapping<'_>| mapping.write && !mapping.shared && mapping.inode != 0 && roots::is_libc(mapping.path);
    for mapping in mappings.iter().filter(is_libcs) {
        let range = mapping.range;
        // SAFETY: a library's data, which is repaired where it cannot be read.
        let words = unsafe { core::slice::from_raw_parts(range.start as *const usize, range.len() / 8) };
        let found = roots::arena_in(range.start, words);
        found.is_none_or(|arena| arenas.push(arena)).then_some(())?;
    }
    Some(arenas)
}

/// Gives devices' memory that the program shares. For flags the kernel is asked only where there is a file that may be one.
pub fn devices(
    mappings: &[Mapping<'_>],
    mut each: impl FnMut(AddrRange) -> Result<(), Stopped>,
) -> Result<(), Stopped> {
    let may_be = |mapping: &&Mapping<'_>| mapping.shared && mapping.is_devices(None);
    if mappings.iter().filter(may_be).any(|mapping| mapping.path.starts_with(b"/")) {
        let piece = arena::zeroed(64 << 10).ok_or(MEMORY)?;
        let mut found = Ok(());
        let read = taken_in::each_mapping(taken_in::OWN, piece, |mapping, flags| {
            if found.is_ok() && mapping.shared && mapping.is_devices(Some(flags)) {
                found = each(mapping.range);
            }
        });
        if read.is_ok() {
            return found;
        }
    }
    mappings.iter().filter(may_be).try_for_each(|mapping| each(mapping.range))
}
