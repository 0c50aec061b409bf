//! `allocator=bundled`: mimalloc in place of the program's own allocator, from libleakscan_mimalloc.so, which lies beside us.
//!
//! Called by the constructor, which loads it; the slots of [`crate::real`] then lead to it. Blocks that are there already, glibc's,
//! stay what they are: they lie in the program's break, where mimalloc has nothing, or in the list of those that glibc has mapped.
//! A realloc of one moves it, so that glibc makes no further ones.
#![allow(unsafe_code)] // calls functions by address, reads chunk headers

use crate::child::Sizes;
use crate::state::{FOREIGN_ALLOCATOR, TRACKER};
use crate::{own, real, regions, stop};
use core::ffi::{CStr, c_char, c_int, c_void};
use core::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering::Relaxed};
use leakscan_engine::arena::{self, List};
use leakscan_engine::scan::blocks::Blocks;
use leakscan_engine::scan::resident::Pages;

unsafe extern "C" {
    fn dlopen(file: *const c_char, mode: c_int) -> *mut c_void;
    fn dlsym(handle: *mut c_void, name: *const c_char) -> *mut c_void;
    fn __errno_location() -> *mut c_int;
}

const NAME: &[u8] = b"libleakscan_mimalloc.so\0";

/// Why it is not in place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Refused {
    No = 0,
    NotThere,
    OtherAllocator,
    Threads,
    Memory,
}

impl Refused {
    /// For the report.
    pub const fn why(self) -> &'static [u8] {
        match self {
            Refused::No => b"",
            Refused::NotThere => {
                b"allocator=bundled: libleakscan_mimalloc.so cannot be loaded from beside libleakscan.so; blocks are the program's allocator's"
            }
            Refused::OtherAllocator => b"allocator=bundled: another allocator than glibc's is there already; it stays",
            Refused::Threads => b"allocator=bundled: there were other threads already when we started; glibc's malloc stays",
            Refused::Memory => b"allocator=bundled: there was no memory for its lists; glibc's malloc stays",
        }
    }
}

static REFUSED: AtomicU8 = AtomicU8::new(Refused::No as u8);
/// Where glibc's own blocks lie: around the program's break, as far as it could ever get. mimalloc has nothing there: it asks for
/// addresses between 2 and 30 TiB, or takes what mmap gives.
static BREAK: AtomicUsize = AtomicUsize::new(0);
const BREAK_SPAN: usize = 1 << 40;
/// Blocks that glibc has mapped by themselves; 0 ends the list, [`FREED`] stands for one that is gone, whose address may be
/// mimalloc's by now.
static MAPPED: [AtomicUsize; 64] = [const { AtomicUsize::new(0) }; 64];

const FREED: usize = 1;

/// What glibc's functions are, for its blocks.
static LIBC_FREE: AtomicUsize = AtomicUsize::new(0);
static LIBC_USABLE_SIZE: AtomicUsize = AtomicUsize::new(0);
/// mimalloc's, behind those of ours that look at the block first.
static FREE: AtomicUsize = AtomicUsize::new(0);
static REALLOC: AtomicUsize = AtomicUsize::new(0);
static USABLE_SIZE: AtomicUsize = AtomicUsize::new(0);
static IN_PLACE: AtomicBool = AtomicBool::new(false);

/// Whether the program's blocks come from here.
pub fn in_place() -> bool {
    IN_PLACE.load(Relaxed)
}

/// Why not, where it was asked for.
pub fn refused() -> &'static [u8] {
    const ALL: [Refused; 5] =
        [Refused::No, Refused::NotThere, Refused::OtherAllocator, Refused::Threads, Refused::Memory];
    ALL.get(usize::from(REFUSED.load(Relaxed))).map_or(b"", |refused| refused.why())
}

/// Puts it in place. For the constructor, after tracking has begun.
pub fn load() {
    if let Err(refused) = try_load() {
        REFUSED.store(refused as u8, Relaxed);
    }
}

fn try_load() -> Result<(), Refused> {
    if FOREIGN_ALLOCATOR.load(Relaxed) || !real::is_interposed() {
        return Err(Refused::OtherAllocator);
    }
    if stop::count() > 1 {
        return Err(Refused::Threads);
    }
    let mut path = [0u8; 4096];
    let beside = own::path(&mut path);
    let folder = beside.iter().rposition(|&byte| byte == b'/').map_or(0, |slash| slash + 1);
    path.get_mut(folder..folder + NAME.len()).ok_or(Refused::NotThere)?.copy_from_slice(NAME);
    let path = CStr::from_bytes_until_nul(&path).map_err(|_| Refused::NotThere)?;

    // What it maps while it is loaded is its own: whose it was is told when the allocator is known again.
    regions::forget_allocator();
    const NOW: c_int = 2;
    // SAFETY: both read their names. The handle is kept: the functions must stay.
    let table = unsafe {
        let handle = dlopen(path.as_ptr(), NOW);
        if handle.is_null() { core::ptr::null_mut() } else { dlsym(handle, c"LEAKSCAN_ALLOCATOR".as_ptr()) }
    };
    // SAFETY: the library's table of ten addresses.
    let Some(&[malloc, calloc, realloc, memalign, free, posix_memalign, aligned_alloc, valloc, pvalloc, usable_size]) =
        (unsafe { table.cast::<[usize; 10]>().as_ref() })
    else {
        real::forget_error();
        regions::set_allocator(None);
        return Err(Refused::NotThere);
    };
    if let Err(refused) = list_blocks() {
        regions::set_allocator(None);
        return Err(refused);
    }
    LIBC_FREE.store(real::FREE.load(Relaxed), Relaxed);
    LIBC_USABLE_SIZE.store(real::MALLOC_USABLE_SIZE.load(Relaxed), Relaxed);
    FREE.store(free, Relaxed);
    REALLOC.store(realloc, Relaxed);
    USABLE_SIZE.store(usable_size, Relaxed);
    for (slot, function) in [
        (&real::MALLOC, malloc),
        (&real::CALLOC, calloc),
        (&real::REALLOC, self::realloc as *const () as usize),
        (&real::MEMALIGN, memalign),
        (&real::FREE, self::free as *const () as usize),
        (&real::POSIX_MEMALIGN, posix_memalign),
        (&real::ALIGNED_ALLOC, aligned_alloc),
        (&real::VALLOC, valloc),
        (&real::PVALLOC, pvalloc),
        (&real::MALLOC_USABLE_SIZE, self::usable_size as *const () as usize),
        (&real::FREE_SIZED, 0),
        (&real::FREE_ALIGNED_SIZED, 0),
    ] {
        slot.store(function, Relaxed);
    }
    IN_PLACE.store(true, Relaxed);
    TRACKER.spare_is_ours.store(true, Relaxed);
    FOREIGN_ALLOCATOR.store(true, Relaxed);
    regions::set_allocator(Some(malloc));
    Ok(())
}

/// Notes where glibc's blocks are.
fn list_blocks() -> Result<(), Refused> {
    let mut pages = Pages::open().ok_or(Refused::Memory)?;
    let mark = arena::mark();
    let blocks = Blocks::build(&TRACKER.live, &Sizes, &mut pages).ok_or(Refused::Memory)?;
    let mut mapped: List<usize> = List::new();
    for block in blocks.iter().filter(|block| is_mapped(*block)) {
        mapped.push(block).then_some(()).ok_or(Refused::Memory)?;
    }
    let fits = mapped.len() <= MAPPED.len();
    MAPPED.iter().zip(mapped.iter()).for_each(|(place, block)| place.store(*block, Relaxed));
    drop(mapped);
    // SAFETY: what the blocks' index had is known to nobody any more; nobody else runs.
    unsafe { arena::release_since(mark) };
    BREAK.store(real::sbrk(0).saturating_sub(4 << 30), Relaxed);
    fits.then_some(()).ok_or(Refused::Memory)
}

/// Whether glibc has mapped the block by itself.
fn is_mapped(block: usize) -> bool {
    // SAFETY: glibc's chunk header stands before each of its blocks.
    unsafe { *((block - 8) as *const usize) & 2 != 0 }
}

#[inline(always)]
fn is_libcs(addr: usize) -> bool {
    addr.wrapping_sub(BREAK.load(Relaxed)) < BREAK_SPAN || MAPPED[0].load(Relaxed) != 0 && is_listed(addr)
}

#[cold]
#[inline(never)]
fn is_listed(addr: usize) -> bool {
    MAPPED.iter().map(|block| block.load(Relaxed)).take_while(|block| *block != 0).any(|block| block == addr)
}

macro_rules! call {
    ($slot:ident, fn($($arg:ident: $ty:ty),*) -> $out:ty) => {
        // SAFETY: the slot holds the address of a function of this C prototype, which is given a block of its allocator's, or none.
        unsafe {
            core::mem::transmute::<usize, unsafe extern "C" fn($($ty),*) -> $out>($slot.load(Relaxed))($($arg),*)
        }
    };
}

extern "C" fn free(addr: usize) {
    if addr != 0 && is_libcs(addr) {
        if let Some(place) = MAPPED.iter().find(|block| block.load(Relaxed) == addr) {
            place.store(FREED, Relaxed);
        }
        return call!(LIBC_FREE, fn(addr: usize) -> ());
    }
    call!(FREE, fn(addr: usize) -> ())
}

extern "C" fn usable_size(addr: usize) -> usize {
    if addr != 0 && is_libcs(addr) {
        return call!(LIBC_USABLE_SIZE, fn(addr: usize) -> usize);
    }
    call!(USABLE_SIZE, fn(addr: usize) -> usize)
}

/// As glibc's, which frees what is to have no bytes.
extern "C" fn realloc(old: usize, size: usize) -> usize {
    if old != 0 && size == 0 {
        free(old);
        return 0;
    }
    if old == 0 || !is_libcs(old) {
        return call!(REALLOC, fn(old: usize, size: usize) -> usize);
    }
    let new = real::malloc(size);
    if new != 0 {
        // SAFETY: both blocks are as long, and the new one is nobody else's yet.
        unsafe { core::ptr::copy_nonoverlapping(old as *const u8, new as *mut u8, size.min(usable_size(old))) };
        free(old);
    }
    new
}

/// An allocation has failed: mimalloc leaves errno alone.
#[cold]
pub fn failed() {
    const ENOMEM: c_int = 12;
    if in_place() {
        // SAFETY: glibc gives the calling thread's own errno.
        unsafe { *__errno_location() = ENOMEM };
    }
}
