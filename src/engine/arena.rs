//! Memory of our own, mapped, never from malloc, and listed, so that a scan can leave it out.
//!
//! Called from inside malloc and from the snapshot child. Mapping may fail (RLIMIT_AS, overcommit refused): callers then do
//! without and count it.
#![allow(unsafe_code)] // hands out mapped memory as references

use crate::sync::{AtomicU32, AtomicUsize};
use crate::{AddrRange, sys};
use core::ptr::NonNull;
use core::sync::atomic::{AtomicBool, Ordering::Acquire, Ordering::Relaxed, Ordering::Release};

/// Ranges that the list holds; more than the largest program needs, since all but leaves of the live map are few and large.
const LISTED: usize = 8192;

/// The list of what we mapped, and what is shared out of it. One per process. (In the order of C, so that a short list touches one page.)
#[repr(C)]
pub struct Own {
    used: AtomicUsize,
    bytes: AtomicUsize,
    /// What is not taken yet of the newest sheet: the number of its next page, and in the lowest bits how many are left; 0: none.
    rest: AtomicUsize,
    /// Where the lists' pieces lie; 0: not mapped yet.
    pieces: AtomicUsize,
    /// Those that are taken, one bit each.
    pieces_taken: AtomicU32,
    ranges: [(AtomicUsize, AtomicUsize); LISTED],
}

static OWN: Own = Own {
    used: AtomicUsize::new(0),
    bytes: AtomicUsize::new(0),
    rest: AtomicUsize::new(0),
    pieces: AtomicUsize::new(0),
    pieces_taken: AtomicU32::new(0),
    ranges: [const { (AtomicUsize::new(0), AtomicUsize::new(0)) }; LISTED],
};

/// The kernel is not to be asked for anything any more.
static CLOSED: AtomicBool = AtomicBool::new(false);

/// From now on nothing is mapped or given back: whoever wants memory is refused, here and in [`crate::heap`]. Or, with `false`, is not any more.
pub fn close(is_closed: bool) {
    CLOSED.store(is_closed, Relaxed);
}

pub fn is_closed() -> bool {
    CLOSED.load(Relaxed)
}

/// Maps `len` zeroed bytes (rounded up to pages) and lists them. `None` if the kernel refuses.
pub fn map(len: usize) -> Option<AddrRange> {
    map_as(len, sys::MAP_PRIVATE)
}

/// The same in large pages where the kernel has some, for good. For memory that will be used throughout, since a large page is there as
/// a whole at its first touch.
pub fn map_large(len: usize) -> Option<AddrRange> {
    const LARGE: usize = 2 << 20;
    const MADV_HUGEPAGE: usize = 14;
    let mapped = map(len.checked_add(LARGE)?)?;
    let start = mapped.start.next_multiple_of(LARGE);
    // SAFETY: advice on memory of our own; where it is not taken, pages are small.
    let _ = unsafe { sys::call(sys::nr::MADVISE, [start, len & !(LARGE - 1), MADV_HUGEPAGE, 0, 0, 0]) };
    Some(AddrRange::new(start, start + len))
}

/// The same as [`map_for_good`], with its pages there already: for a little memory that is looked at in many places before it is
/// written, each of which would cost two page faults.
pub fn map_populated(len: usize) -> Option<AddrRange> {
    let range = map_for_good(len)?;
    populate(range);
    Some(range)
}

/// Sees to it that the pages of a range of ours are there to be written. Before Linux 5.14 they come when they are touched.
pub fn populate(range: AddrRange) {
    if is_closed() {
        return;
    }
    const MADV_POPULATE_WRITE: usize = 23;
    let start = range.start & !4095;
    // SAFETY: changes nothing that is there.
    let _ = unsafe {
        sys::call(sys::nr::MADVISE, [start, (range.end - start).next_multiple_of(4096), MADV_POPULATE_WRITE, 0, 0, 0])
    };
}

/// What memory is taken from that is never given back: one large mapping at first, then small ones.
const FIRST_SHEET: usize = 32 << 20;
const SHEET: usize = 1 << 20;
/// The largest memory for which there is a new sheet when one is full.
const SMALL: usize = SHEET / 2;
/// The lowest bits of [`Own::rest`].
const LEFT: usize = (2 * FIRST_SHEET / 4096) - 1;

/// The same as [`map`], for memory that nobody gives back, and that may be used here and there only: it is in small pages, always, since
/// where the kernel gives out large ones unasked (its own default) each first touch would be one of 2 MiB. A process has some twenty of
/// these from its start to its end, and each of its own would cost two system calls and a mapping.
pub fn map_for_good(len: usize) -> Option<AddrRange> {
    let pages = len.div_ceil(4096);
    // The first touch of the page is a write: a read would cost a page fault of its own.
    let mut now = OWN.rest.compare_exchange(0, 0, Relaxed, Relaxed).unwrap_or_else(|now| now);
    loop {
        let (next, left) = (now / (LEFT + 1), now & LEFT);
        if pages <= left {
            match OWN.rest.compare_exchange_weak(now, rest(next + pages, left - pages), Relaxed, Relaxed) {
                Ok(_) => return Some(AddrRange::new(next * 4096, (next + pages) * 4096)),
                Err(theirs) => now = theirs,
            }
            continue;
        }
        // What is left of the one before is not used. Where memory is limited, the program is to have it.
        let new = match now {
            0 if pages <= FIRST_SHEET / 4096 && !sys::is_memory_limited() => map(FIRST_SHEET),
            _ => None,
        };
        let Some(new) = new.or_else(|| if len <= SMALL { map(SHEET) } else { None }).map(in_small_pages) else {
            return map(len).map(in_small_pages);
        };
        match OWN.rest.compare_exchange(now, rest(new.start / 4096, new.len() / 4096), Relaxed, Relaxed) {
            Ok(_) => now = OWN.rest.load(Relaxed),
            Err(theirs) => {
                // SAFETY: nobody has been told of it.
                unsafe { unmap(new) };
                now = theirs;
            }
        }
    }
}

const fn rest(next: usize, left: usize) -> usize {
    next * (LEFT + 1) + left
}

/// Sees to it that the kernel makes no large pages of a range of ours.
pub fn in_small_pages(range: AddrRange) -> AddrRange {
    const MADV_NOHUGEPAGE: usize = 15;
    // SAFETY: advice on memory of our own.
    let _ = unsafe { sys::call(sys::nr::MADVISE, [range.start, range.len(), MADV_NOHUGEPAGE, 0, 0, 0]) };
    range
}

/// The same as [`map`], shared with child processes.
pub fn map_shared(len: usize) -> Option<AddrRange> {
    map_as(len, sys::MAP_SHARED)
}

fn map_as(len: usize, sharing: usize) -> Option<AddrRange> {
    let len = len.checked_next_multiple_of(4096).filter(|_| !is_closed())?;
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
    if is_closed() {
        return;
    }
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

/// What is mapped at some moment: for [`release_since`].
#[derive(Clone, Copy)]
pub struct Mark {
    used: usize,
    rest: usize,
    pieces: usize,
}

pub fn mark() -> Mark {
    // The lists' pieces stay, if there is memory for them.
    let pieces = pieces().unwrap_or(0);
    Mark { used: OWN.used.load(Relaxed), rest: OWN.rest.load(Relaxed), pieces }
}

/// Gives back what was mapped since a [`mark`].
///
/// # Safety
/// Nothing refers to any of it, and nobody has mapped or unmapped anything meanwhile but for this.
pub unsafe fn release_since(mark: Mark) {
    if mark.pieces == 0 {
        OWN.pieces.store(0, Relaxed);
        OWN.pieces_taken.store(0, Relaxed);
    }
    if OWN.rest.swap(mark.rest, Relaxed) != mark.rest {
        // SAFETY: by this function's own contract.
        unsafe { clear_rest(mark.rest) };
    }
    let mark = mark.used;
    for (start, end) in OWN.ranges.get(mark..OWN.used.load(Relaxed).min(LISTED)).unwrap_or_default() {
        let range = AddrRange::new(start.load(Relaxed), end.load(Relaxed));
        if range.start != 0 {
            // SAFETY: by this function's own contract.
            unsafe { unmap(range) };
        }
    }
    let used = OWN.used.load(Relaxed).min(LISTED);
    let empty = |slot: &&(AtomicUsize, AtomicUsize)| slot.1.load(Relaxed) == 0;
    let slots = OWN.ranges.get(mark..used).unwrap_or_default();
    OWN.used.store(used - slots.iter().rev().take_while(empty).count(), Relaxed);
}

/// Makes what was not taken of a sheet zeros again.
///
/// # Safety
/// Nothing refers to it any more.
unsafe fn clear_rest(rest: usize) {
    let (start, len) = (rest / (LEFT + 1) * 4096, (rest & LEFT) * 4096);
    // SAFETY: by this function's own contract. Of memory that is locked the kernel takes nothing back.
    unsafe {
        if sys::forget(start, len).is_err() {
            (start as *mut u8).write_bytes(0, len);
        }
    }
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
unsafe impl Zeroed for core::sync::atomic::AtomicUsize {}
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

/// A zeroed slice in pages of its own, for ever. `None` if the kernel refuses.
pub fn zeroed<T: Zeroed>(len: usize) -> Option<&'static mut [T]> {
    let range = map_for_good(len.checked_mul(size_of::<T>())?.max(1))?;
    // SAFETY: the memory is new, zeroed, page-aligned, long enough, ours alone and never given back; `T` is `Zeroed`.
    Some(unsafe { core::slice::from_raw_parts_mut(range.start as *mut T, len) })
}

/// The same in a mapping of its own, which may be given back by [`unmap`].
pub fn zeroed_for_now<T: Zeroed>(len: usize) -> Option<&'static mut [T]> {
    let range = map(len.checked_mul(size_of::<T>())?.max(1))?;
    // SAFETY: as in `zeroed`; whoever gives it back promises that nobody uses it any more.
    Some(unsafe { core::slice::from_raw_parts_mut(range.start as *mut T, len) })
}

/// The same, shared with child processes.
pub fn zeroed_shared<T: Zeroed>(len: usize) -> Option<&'static mut [T]> {
    let range = map_shared(len.checked_mul(size_of::<T>())?.max(1))?;
    // SAFETY: as in `zeroed`.
    Some(unsafe { core::slice::from_raw_parts_mut(range.start as *mut T, len) })
}

/// A growing list in mapped memory, for the snapshot child and other single owners.
pub struct List<T: Copy> {
    /// Mapped, page-aligned, this list's alone; the first `len` items are written.
    items: *mut T,
    capacity: usize,
    len: usize,
}

impl<T: Copy> Default for List<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T: Copy> List<T> {
    pub const fn new() -> Self {
        Self { items: NonNull::dangling().as_ptr(), capacity: 0, len: 0 }
    }

    /// Adds an item; `false` if no memory could be mapped for it.
    #[must_use]
    #[inline]
    pub fn push(&mut self, item: T) -> bool {
        if self.len == self.capacity && !self.grow() {
            return false;
        }
        // SAFETY: there is room for more than `len` items.
        unsafe { self.items.add(self.len).write(item) };
        self.len += 1;
        true
    }

    #[inline]
    pub fn pop(&mut self) -> Option<T> {
        let last = *self.last()?;
        self.len -= 1;
        Some(last)
    }

    pub fn clear(&mut self) {
        self.len = 0;
    }

    #[cold]
    fn grow(&mut self) -> bool {
        let bytes = (self.capacity * size_of::<T>() * 2).max(PIECE);
        let Some(range) = take_piece(bytes).or_else(|| map(bytes)) else { return false };
        let items = range.start as *mut T;
        // SAFETY: the new range is longer than the old one, and apart from it.
        unsafe { items.copy_from_nonoverlapping(self.items, self.len) };
        // The old items go with the list that is left behind.
        drop(core::mem::replace(self, List { items, capacity: range.len() / size_of::<T>(), len: self.len }));
        true
    }
}

impl<T: Copy> Drop for List<T> {
    fn drop(&mut self) {
        if self.capacity != 0 {
            let start = self.items as usize;
            let range = AddrRange::new(start, (start + self.capacity * size_of::<T>()).next_multiple_of(4096));
            if !give_piece(range) {
                // SAFETY: the items came from `map` and are this list's alone.
                unsafe { unmap(range) };
            }
        }
    }
}

impl<T: Copy> core::ops::Deref for List<T> {
    type Target = [T];
    fn deref(&self) -> &[T] {
        // SAFETY: the first `len` items are written.
        unsafe { core::slice::from_raw_parts(self.items, self.len) }
    }
}

impl<T: Copy> core::ops::DerefMut for List<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: as above.
        unsafe { core::slice::from_raw_parts_mut(self.items, self.len) }
    }
}

// SAFETY: a list owns its items.
unsafe impl<T: Copy + Send> Send for List<T> {}

/// What a list begins with. Most lists need no more, and a scan has some twenty: they take their pieces from one mapping, and give
/// them back to it.
const PIECE: usize = 64 << 10;

/// Where the pieces lie.
fn pieces() -> Option<usize> {
    match OWN.pieces.load(Relaxed) {
        0 => {
            let start = map_for_good(PIECE * u32::BITS as usize)?.start;
            // If another thread was first, this stays unused.
            Some(OWN.pieces.compare_exchange(0, start, Relaxed, Relaxed).err().unwrap_or(start))
        }
        base => Some(base),
    }
}

/// A piece, if that is what is asked for and one is free.
fn take_piece(bytes: usize) -> Option<AddrRange> {
    if bytes != PIECE {
        return None;
    }
    let base = pieces()?;
    let mut taken = OWN.pieces_taken.load(Relaxed);
    while taken != u32::MAX {
        let index = taken.trailing_ones();
        // Acquire: whoever had the piece before has done with it.
        match OWN.pieces_taken.compare_exchange_weak(taken, taken | 1 << index, Acquire, Relaxed) {
            Ok(_) => {
                let start = base + index as usize * PIECE;
                return Some(AddrRange::new(start, start + PIECE));
            }
            Err(now) => taken = now,
        }
    }
    None
}

/// Takes a piece back; `false` if the range is none.
fn give_piece(range: AddrRange) -> bool {
    let base = OWN.pieces.load(Relaxed);
    let index = range.start.wrapping_sub(base) / PIECE;
    let ours = base != 0 && range.start >= base && index < u32::BITS as usize;
    if ours {
        OWN.pieces_taken.fetch_and(!(1 << index), Release);
    }
    ours
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

    #[test]
    fn small_memory_is_zero_listed_and_apart() {
        let sizes = [1, 4096, 4097, SMALL, 300_000, SMALL, 12, SMALL + 1].repeat(5);
        let taken = |size: &usize| {
            let bytes = zeroed::<u8>(*size).unwrap();
            assert!(bytes.iter().all(|byte| *byte == 0));
            bytes.fill(0xa5);
            let start = bytes.as_ptr() as usize;
            AddrRange::new(start, start + bytes.len())
        };
        let ranges: Vec<_> = sizes.iter().map(taken).collect();
        for (at, range) in ranges.iter().enumerate() {
            assert!(range.start % 4096 == 0);
            assert!(own_ranges().any(|own| own.start <= range.start && range.end <= own.end), "{at} is not listed");
            assert!(ranges[..at].iter().all(|other| !other.overlaps(*range)), "{at} is another's");
        }
    }

    #[test]
    fn lists_beyond_the_pieces_have_memory_of_their_own_and_pieces_come_back() {
        for _ in 0..3 {
            let mut lists: Vec<List<usize>> = (0..100).map(|_| List::new()).collect();
            for (at, list) in lists.iter_mut().enumerate() {
                assert!(list.push(at));
            }
            assert!(lists.iter().enumerate().all(|(at, list)| list[..] == [at]));
        }
    }
}
