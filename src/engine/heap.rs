//! Small blocks in slabs: an allocator for `allocator=bundled`, in place of a program's own one.
//!
//! A slab is 64 KiB of blocks of one size, one bit each in its books, which lie elsewhere. What is given out is the lowest free block of
//! the lowest slab that has one (the address-ordered first fit of Wilson et al., 1995), so that blocks made after each other lie side
//! by side, and slabs at the top become empty. A thread takes and gives back blocks by the dozen, into a [`Cache`] of its own (Bonwick's
//! magazines, 2001), from which it serves itself last in, first out, without a lock.
//!
//! All slabs lie in one range of addresses: whose a block is, is one comparison, how large it is, one byte. What is larger than
//! [`LARGEST`], or finds no room here, is for the allocator below.
#![allow(unsafe_code)] // books of slabs in mapped memory

mod classes;
mod set;

use crate::arena::{self, Zeroed};
use crate::lock::{Lock, RawFutex};
use crate::{AddrRange, sys};
use classes::{CLASS_OF, CLASSES, MOST, ROOM, SIZES};
use core::cell::Cell;
use core::sync::atomic::{AtomicU8, AtomicUsize, Ordering::Acquire, Ordering::Relaxed, Ordering::Release};
use lock_api::RawMutex;
use set::{MOST_SLABS, Set};

pub use classes::{LARGEST, SMALLEST};

const SLAB_SHIFT: u32 = 16;
const SLAB: usize = 1 << SLAB_SHIFT;

/// Slabs that are made readable at once.
const STEP: usize = 64;
/// Empty slabs that keep their memory: as many, or a quarter as many as are in use.
const KEPT: usize = 256;

/// The books of a slab.
#[repr(C)]
struct Slab {
    /// A bit for each block: it is free.
    free: [u64; SLAB / SMALLEST / 64],
    /// Free blocks.
    left: usize,
}

// SAFETY: integers.
unsafe impl Zeroed for Slab {}

/// The slabs of no class.
struct Pool {
    /// Those that were in use and have their memory still, and those that have given it back.
    kept: Set,
    empty: Set,
    kept_count: usize,
    in_use: usize,
    /// Slabs that were ever in use, and those that can be read; the others lie behind.
    used: usize,
    open: usize,
    /// All; 0: none is to be had.
    count: usize,
}

impl Pool {
    const NONE: Self = Self { kept: Set::NONE, empty: Set::NONE, kept_count: 0, in_use: 0, used: 0, open: 0, count: 0 };
}

/// The heap. One per process.
pub struct Heap {
    base: AtomicUsize,
    /// In bytes; 0: there is none.
    span: AtomicUsize,
    /// The class of each slab, a byte each.
    classes: AtomicUsize,
    /// The books of each slab: for who holds its class's lock.
    slabs: AtomicUsize,
    /// For each class, its slabs that have free blocks.
    central: [Lock<Set>; CLASSES],
    /// Taken after a class's lock.
    pool: Lock<Pool>,
}

/// Free blocks of one thread, for that thread only.
#[repr(C)]
pub struct Cache {
    counts: [Cell<u16>; CLASSES],
    /// Some are being taken or given back: a signal handler that comes in between finds the locks held.
    busy: Cell<bool>,
    /// Blocks, by how many times 16 bytes they lie behind the base.
    blocks: [[Cell<u32>; ROOM]; CLASSES],
}

// SAFETY: empty when zero.
unsafe impl Zeroed for Cache {}

impl Cache {
    /// Takes the block at an offset in, which has room.
    #[inline(always)]
    fn keep(&self, class: usize, count: u16, offset: usize) {
        self.blocks[class][usize::from(count) % ROOM].set((offset / 16) as u32);
        self.counts[class].set(count + 1);
    }
}

impl Default for Heap {
    fn default() -> Self {
        Self::new()
    }
}

impl Heap {
    pub const fn new() -> Self {
        Self {
            base: AtomicUsize::new(0),
            span: AtomicUsize::new(0),
            classes: AtomicUsize::new(0),
            slabs: AtomicUsize::new(0),
            central: [const { Lock::from_raw(RawFutex::INIT, Set::NONE) }; CLASSES],
            pool: Lock::from_raw(RawFutex::INIT, Pool::NONE),
        }
    }

    /// Takes addresses for `bytes` of blocks, or for half as many, and so on. `false` if there are none. To be called once, before
    /// any thread uses the heap.
    pub fn init(&self, bytes: usize) -> bool {
        let mut count = (bytes / SLAB).min(MOST_SLABS);
        while count >= STEP {
            let len = (count + 1) * SLAB;
            if let Ok(start) = sys::reserve(len) {
                let done = self.lay_out(start.next_multiple_of(SLAB), count);
                if !done {
                    // SAFETY: nobody has been told of it.
                    let _ = unsafe { sys::unmap(start, len) };
                }
                return done;
            }
            count /= 2;
        }
        false
    }

    fn lay_out(&self, base: usize, count: usize) -> bool {
        let len = count.div_ceil(64);
        let Some(sets) = arena::zeroed::<u64>(Set::words_in_all(len)) else { return false };
        let Some(classes) = arena::zeroed::<u8>(count) else { return false };
        let Some(slabs) = arena::zeroed::<Slab>(count) else { return false };
        let first = sets.as_mut_ptr() as usize;
        let set = |at: usize| Set { words: first + at * size_of::<u64>(), len };
        *self.pool.lock() = Pool { kept: set(CLASSES), empty: set(0), count, ..Pool::NONE };
        self.central.iter().enumerate().skip(1).for_each(|(class, central)| *central.lock() = set(class));
        self.classes.store(classes.as_mut_ptr() as usize, Relaxed);
        self.slabs.store(slabs.as_mut_ptr() as usize, Relaxed);
        self.base.store(base, Relaxed);
        self.span.store(count * SLAB, Release);
        true
    }

    /// Where its blocks lie.
    pub fn range(&self) -> AddrRange {
        let base = self.base.load(Relaxed);
        AddrRange::new(base, base + self.span.load(Acquire))
    }

    #[inline(always)]
    pub fn contains(&self, addr: usize) -> bool {
        addr.wrapping_sub(self.base.load(Relaxed)) < self.span.load(Relaxed)
    }

    /// The bytes of the block at `addr`, if it comes from here.
    #[inline(always)]
    pub fn usable(&self, addr: usize) -> Option<usize> {
        let offset = addr.wrapping_sub(self.base.load(Relaxed));
        (offset < self.span.load(Relaxed)).then(|| SIZES[self.class_at(offset)])
    }

    /// The class of the slab at an offset within the span.
    #[inline(always)]
    fn class_at(&self, offset: usize) -> usize {
        // SAFETY: there is a byte for each slab of the span. It changes while the slab has no block only.
        let class = unsafe { &*(self.classes.load(Relaxed) as *const AtomicU8).add(offset >> SLAB_SHIFT) };
        usize::from(class.load(Relaxed)) % CLASSES
    }

    /// A block for the thread of this cache that has `size` bytes or more, and how many. `None`: this is for the allocator below.
    #[inline(always)]
    pub fn take(&self, cache: &Cache, size: usize) -> Option<(usize, usize)> {
        if size > LARGEST {
            return None;
        }
        let class = usize::from(CLASS_OF[size.div_ceil(16)]);
        let mut count = usize::from(cache.counts[class].get());
        if count == 0 {
            count = self.fetch(cache, class)?;
        }
        let unit = cache.blocks[class][(count - 1) % ROOM].get();
        cache.counts[class].set(count as u16 - 1);
        Some((self.base.load(Relaxed) + unit as usize * 16, SIZES[class]))
    }

    /// Takes a block back that [`Self::take`] has given. `false` if it is none of them.
    #[inline(always)]
    pub fn give(&self, cache: &Cache, addr: usize) -> bool {
        let offset = addr.wrapping_sub(self.base.load(Relaxed));
        if offset >= self.span.load(Relaxed) {
            return false;
        }
        let class = self.class_at(offset);
        let count = cache.counts[class].get();
        if count >= MOST[class] {
            self.give_to_full(cache, class, offset);
        } else {
            cache.keep(class, count, offset);
        }
        true
    }

    #[cold]
    #[inline(never)]
    fn give_to_full(&self, cache: &Cache, class: usize, offset: usize) {
        // If it cannot, the block stays where it is, in nobody's books.
        if let Some(left) = self.send(cache, class, usize::from(MOST[class].div_ceil(2))) {
            cache.keep(class, left, offset);
        }
    }

    /// The same for a thread that has no cache (any more).
    pub fn give_at_once(&self, addr: usize) -> bool {
        let contained = self.contains(addr);
        if contained {
            let offset = addr - self.base.load(Relaxed);
            self.put_back(self.class_at(offset), core::iter::once(offset / 16));
        }
        contained
    }

    /// Gives back all that a thread keeps.
    pub fn drain(&self, cache: &Cache) {
        for class in 1..CLASSES {
            let count = usize::from(cache.counts[class].get());
            if count != 0 {
                self.send(cache, class, count);
            }
        }
    }

    /// Gets blocks for a cache that has none; how many.
    #[cold]
    #[inline(never)]
    fn fetch(&self, cache: &Cache, class: usize) -> Option<usize> {
        if class == 0 || self.span.load(Acquire) == 0 || cache.busy.replace(true) {
            return None;
        }
        let wanted = usize::from(MOST[class].div_ceil(2));
        let mut got = 0;
        let mut slabs = self.central[class].lock();
        while slabs.len != 0
            && got < wanted
            && let Some(slab) = slabs.lowest().or_else(|| self.new_slab(class, &mut slabs))
        {
            let books = self.books(slab);
            let first = slab * (SLAB / 16);
            'slab: for (at, word) in books.free.iter_mut().enumerate() {
                while *word != 0 {
                    if got == wanted {
                        break 'slab;
                    }
                    let bit = word.trailing_zeros() as usize;
                    *word &= *word - 1;
                    // The lowest is to be the next one.
                    let unit = first + (at * 64 + bit) * (SIZES[class] / 16);
                    cache.blocks[class][wanted - 1 - got].set(unit as u32);
                    got += 1;
                    books.left -= 1;
                }
            }
            if books.left == 0 {
                slabs.remove(slab);
            }
        }
        drop(slabs);
        if got < wanted {
            // There is no memory for more: those that were got are at the end.
            (0..got).for_each(|at| cache.blocks[class][at].swap(&cache.blocks[class][wanted - got + at]));
        }
        cache.counts[class].set(got as u16);
        cache.busy.set(false);
        (got != 0).then_some(got)
    }

    /// Gives back the `count` blocks that the cache has had for the longest time; how many are left.
    fn send(&self, cache: &Cache, class: usize, count: usize) -> Option<u16> {
        if class == 0 || cache.busy.replace(true) {
            return None;
        }
        let blocks = &cache.blocks[class];
        let left = usize::from(cache.counts[class].get()) - count;
        // A signal handler finds none meanwhile: what is at the end would be its, and this thread's again.
        cache.counts[class].set(0);
        self.put_back(class, blocks[..count].iter().map(|unit| unit.get() as usize));
        (0..left).for_each(|at| blocks[at].set(blocks[count + at].get()));
        cache.counts[class].set(left as u16);
        cache.busy.set(false);
        Some(left as u16)
    }

    fn put_back(&self, class: usize, units: impl Iterator<Item = usize>) {
        let mut slabs = self.central[class].lock();
        if slabs.len == 0 {
            return;
        }
        for unit in units {
            let slab = unit / (SLAB / 16);
            let block = unit % (SLAB / 16) / (SIZES[class].max(16) / 16);
            let books = self.books(slab);
            books.free[block / 64] |= 1 << (block % 64);
            books.left += 1;
            if books.left == 1 {
                slabs.add(slab);
            }
            if books.left == SLAB / SIZES[class].max(16) {
                slabs.remove(slab);
                self.empty(slab);
            }
        }
    }

    /// The books of a slab, for who holds its class's lock.
    #[expect(clippy::mut_from_ref)]
    fn books(&self, slab: usize) -> &mut Slab {
        // SAFETY: there are books for each slab. They are its class's, whose lock the caller holds, or nobody's, under the pool's.
        unsafe { &mut *(self.slabs.load(Relaxed) as *mut Slab).add(slab) }
    }

    /// A slab for a class, whose lock is held; it is in the set.
    fn new_slab(&self, class: usize, slabs: &mut Set) -> Option<usize> {
        let mut pool = self.pool.lock();
        if pool.count == 0 {
            return None;
        }
        let slab = if let Some(slab) = pool.kept.lowest() {
            pool.kept.remove(slab);
            pool.kept_count -= 1;
            slab
        } else if let Some(slab) = pool.empty.lowest() {
            pool.empty.remove(slab);
            slab
        } else {
            if pool.used == pool.open {
                self.open(&mut pool).then_some(())?;
            }
            pool.used += 1;
            pool.used - 1
        };
        pool.in_use += 1;
        drop(pool);
        let books = self.books(slab);
        books.left = SLAB / SIZES[class];
        for (at, word) in books.free.iter_mut().enumerate() {
            *word = match books.left.saturating_sub(at * 64) {
                0 => 0,
                bits @ ..64 => (1 << bits) - 1,
                _ => u64::MAX,
            };
        }
        // SAFETY: as in `class_at`; the slab has no block that anybody knows.
        unsafe { &*(self.classes.load(Relaxed) as *const AtomicU8).add(slab) }.store(class as u8, Relaxed);
        slabs.add(slab);
        Some(slab)
    }

    /// Makes more slabs readable; `false` if there are no more, or the kernel refuses.
    fn open(&self, pool: &mut Pool) -> bool {
        let more = STEP.min(pool.count.saturating_sub(pool.open));
        let start = self.base.load(Relaxed) + pool.open * SLAB;
        // SAFETY: addresses that were reserved for blocks, and hold none yet.
        let opened = more != 0 && !arena::is_closed() && unsafe { sys::open_reserved(start, more * SLAB) }.is_ok();
        pool.open += if opened { more } else { 0 };
        opened
    }

    /// Takes a slab back that has no block any more; its class's lock is held.
    fn empty(&self, slab: usize) {
        let mut pool = self.pool.lock();
        if pool.count == 0 {
            return;
        }
        pool.in_use -= 1;
        if pool.kept_count < KEPT.max(pool.in_use / 4) || arena::is_closed() {
            pool.kept_count += 1;
            pool.kept.add(slab);
        } else {
            // SAFETY: no block lies in it.
            let _ = unsafe { sys::forget(self.base.load(Relaxed) + slab * SLAB, SLAB) };
            pool.empty.add(slab);
        }
    }

    /// In the child of a fork: whoever held a lock is not here (or is the interrupted caller of the signal handler that has forked, and
    /// goes on), and what he was at stays half done. No lock is taken ahead of a fork, as that waits for locks of libc's, whose holders may
    /// wait for one of these. What a half-done change can have left is a free block or slab that is in no books, for a class that begins
    /// anew, and for slabs of no class, of which there are none any more.
    ///
    /// # Safety
    /// No other thread is in this process.
    pub unsafe fn forked(&self) {
        for central in self.central.iter().filter(|central| central.is_locked()) {
            // SAFETY: by this function's own contract nobody uses the set but, later, the interrupted caller, for whom any set will do.
            unsafe {
                let set = &mut *central.data_ptr();
                match arena::zeroed::<u64>(Set::words_in_all(set.len)) {
                    Some(words) => set.words = words.as_mut_ptr() as usize,
                    None => set.len = 0,
                }
                central.force_unlock();
            }
        }
        if self.pool.is_locked() {
            // SAFETY: as above.
            unsafe {
                (*self.pool.data_ptr()).count = 0;
                self.pool.force_unlock();
            }
        }
    }
}

#[cfg(test)]
mod tests;
