//! Memory of our own, mapped, never from malloc, and listed, so that a scan can leave it out.
//!
//! Called from inside malloc and from the snapshot child. Mapping may fail (RLIMIT_AS, overcommit refused): callers then do
//! without and count it.
#![allow(unsafe_code)] // hands out mapped memory as references

use crate::{AddrRange, sys};
use core::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// Ranges that the list holds; more than the largest program needs, since all but leaves of the live map are few and large.
const LISTED: usize = 8192;

/// The list of what we mapped. One per process.
pub struct Own {
    ranges: [(AtomicUsize, AtomicUsize); LISTED],
    used: AtomicUsize,
    bytes: AtomicUsize,
}

static OWN: Own = Own {
    ranges: [const { (AtomicUsize::new(0), AtomicUsize::new(0)) }; LISTED],
    used: AtomicUsize::new(0),
    bytes: AtomicUsize::new(0),
};

/// Maps `len` zeroed bytes (rounded up to pages) and lists them. `None` if the kernel refuses.
pub fn map(len: usize) -> Option<AddrRange> {
    map_as(len, sys::MAP_PRIVATE)
}

/// The same in large pages where the kernel has some: what was mapped, and from where on `len` bytes may be used. For memory that
/// will be used throughout, since a large page is there as a whole at its first touch.
pub fn map_large(len: usize) -> Option<(AddrRange, usize)> {
    const LARGE: usize = 2 << 20;
    const MADV_HUGEPAGE: usize = 14;
    let mapped = map(len.checked_add(LARGE)?)?;
    let start = mapped.start.next_multiple_of(LARGE);
    // SAFETY: advice on memory of our own; where it is not taken, pages are small.
    let _ = unsafe { sys::call(sys::nr::MADVISE, [start, len & !(LARGE - 1), MADV_HUGEPAGE, 0, 0, 0]) };
    Some((mapped, start))
}

/// The same, shared with child processes.
pub fn map_shared(len: usize) -> Option<AddrRange> {
    map_as(len, sys::MAP_SHARED)
}

fn map_as(len: usize, sharing: usize) -> Option<AddrRange> {
    let len = len.checked_next_multiple_of(4096)?;
    let slot = claim_slot()?;
    let start = match sys::map(len, sharing) {
        Ok(start) => start,
        Err(_) => {
            slot.1.store(0, Relaxed);
            return None;
        }
    };
    slot.0.store(start, Relaxed);
    slot.1.store(start + len, Relaxed);
    OWN.bytes.fetch_add(len, Relaxed);
    Some(AddrRange::new(start, start + len))
}

/// A slot of the list that nobody uses: its start is 0, and its end is 1 while it is claimed.
fn claim_slot() -> Option<&'static (AtomicUsize, AtomicUsize)> {
    let claim = |slot: &&(AtomicUsize, AtomicUsize)| slot.1.compare_exchange(0, 1, Relaxed, Relaxed).is_ok();
    let used = OWN.used.load(Relaxed).min(LISTED);
    // Only a list that has grown long is searched for slots that were given back.
    if used >= LISTED / 8
        && let Some(slot) = OWN.ranges[..used].iter().find(claim)
    {
        return Some(slot);
    }
    OWN.ranges.get(OWN.used.fetch_add(1, Relaxed)).filter(claim)
}

/// What is mapped now, in no order.
pub fn own_ranges() -> impl Iterator<Item = AddrRange> {
    let used = OWN.used.load(Relaxed).min(LISTED);
    OWN.ranges[..used]
        .iter()
        .map(|(start, end)| AddrRange::new(start.load(Relaxed), end.load(Relaxed)))
        .filter(|range| range.start != 0 && !range.is_empty())
}

/// Bytes of address space mapped by us (touched or not).
pub fn own_bytes() -> usize {
    OWN.bytes.load(Relaxed)
}

/// Gives a range of [`map`] back.
///
/// # Safety
/// Nothing refers to it any more.
pub unsafe fn unmap(range: AddrRange) {
    for (start, end) in &OWN.ranges[..OWN.used.load(Relaxed).min(LISTED)] {
        if start.load(Relaxed) == range.start && end.load(Relaxed) == range.end {
            start.store(0, Relaxed);
            end.store(0, Relaxed);
            OWN.bytes.fetch_sub(range.len(), Relaxed);
        }
    }
    // SAFETY: by this function's own contract.
    let _ = unsafe { sys::unmap(range.start, range.len()) };
}

/// A type whose all-zero bytes are a value and which needs no drop.
///
/// # Safety
/// Zeroed memory of its size and alignment (at most a page) is a valid value.
pub unsafe trait Zeroed: Sized {}
// SAFETY: integers, atomics and arrays of such are valid when zero.
unsafe impl Zeroed for u8 {}
// SAFETY: as above.
unsafe impl Zeroed for u16 {}
// SAFETY: as above.
unsafe impl Zeroed for u32 {}
// SAFETY: as above.
unsafe impl Zeroed for u64 {}
// SAFETY: as above.
unsafe impl Zeroed for usize {}
// SAFETY: as above.
unsafe impl Zeroed for AtomicUsize {}
// SAFETY: as above.
unsafe impl Zeroed for core::sync::atomic::AtomicU64 {}
// SAFETY: as above.
unsafe impl Zeroed for core::sync::atomic::AtomicU32 {}
// SAFETY: as above.
unsafe impl Zeroed for AddrRange {}
// SAFETY: an array of zeroed values.
unsafe impl<T: Zeroed, const N: usize> Zeroed for [T; N] {}
// SAFETY: a tuple of zeroed values.
unsafe impl<A: Zeroed, B: Zeroed> Zeroed for (A, B) {}

/// A zeroed slice in memory of its own, for ever. `None` if the kernel refuses.
pub fn zeroed<T: Zeroed>(len: usize) -> Option<&'static mut [T]> {
    let range = map(len.checked_mul(size_of::<T>())?.max(1))?;
    // SAFETY: the mapping is new, zeroed, page-aligned, long enough, ours alone and never unmapped; `T` is `Zeroed`.
    Some(unsafe { core::slice::from_raw_parts_mut(range.start as *mut T, len) })
}

/// The same, shared with child processes.
pub fn zeroed_shared<T: Zeroed>(len: usize) -> Option<&'static mut [T]> {
    let range = map_shared(len.checked_mul(size_of::<T>())?.max(1))?;
    // SAFETY: as in `zeroed`.
    Some(unsafe { core::slice::from_raw_parts_mut(range.start as *mut T, len) })
}

/// A growing list in mapped memory, for the snapshot child and other single owners.
pub struct List<T: Zeroed + Copy + 'static> {
    items: &'static mut [T],
    len: usize,
}

impl<T: Zeroed + Copy> Default for List<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T: Zeroed + Copy> List<T> {
    pub const fn new() -> Self {
        Self { items: &mut [], len: 0 }
    }

    /// Adds an item; `false` if no memory could be mapped for it.
    #[must_use]
    #[inline]
    pub fn push(&mut self, item: T) -> bool {
        if self.len == self.items.len() && !self.grow() {
            return false;
        }
        self.items[self.len] = item;
        self.len += 1;
        true
    }

    #[inline]
    pub fn pop(&mut self) -> Option<T> {
        self.len = self.len.checked_sub(1)?;
        Some(self.items[self.len])
    }

    pub fn clear(&mut self) {
        self.len = 0;
    }

    #[cold]
    fn grow(&mut self) -> bool {
        let capacity = (self.items.len() * 2).max(65536 / size_of::<T>());
        let Some(larger) = zeroed(capacity) else { return false };
        larger[..self.len].copy_from_slice(&self.items[..self.len]);
        // The old items go with the list that is left behind.
        drop(core::mem::replace(self, List { items: larger, len: self.len }));
        true
    }
}

impl<T: Zeroed + Copy> Drop for List<T> {
    fn drop(&mut self) {
        if !self.items.is_empty() {
            let start = self.items.as_ptr() as usize;
            let bytes = size_of_val::<[T]>(self.items).next_multiple_of(4096);
            // SAFETY: the items came from `zeroed` and are this list's alone.
            unsafe { unmap(AddrRange::new(start, start + bytes)) };
        }
    }
}

impl<T: Zeroed + Copy> core::ops::Deref for List<T> {
    type Target = [T];
    fn deref(&self) -> &[T] {
        &self.items[..self.len]
    }
}

impl<T: Zeroed + Copy> core::ops::DerefMut for List<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        &mut self.items[..self.len]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_keeps_what_was_pushed_over_growth_and_its_memory_is_listed() {
        let mut list = List::new();
        for i in 0..100_000u64 {
            assert!(list.push(i));
        }
        assert!(list.iter().copied().eq(0..100_000));
        let at = list.as_ptr() as usize;
        assert!(own_ranges().any(|range| range.contains(at)));
        assert_eq!(list.pop(), Some(99_999));
    }
}
