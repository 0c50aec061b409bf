//! What is ours or set apart in the address space: the library's own data; memory that the program got by sbrk itself;
//! memory that it keeps from its forks.
#![allow(unsafe_code)] // reads our own ELF header

use core::ffi::c_int;
use core::sync::atomic::{AtomicU32, AtomicUsize, Ordering::Acquire, Ordering::Relaxed, Ordering::Release};
use leakscan_engine::AddrRange;

unsafe extern "C" {
    /// The start of this library, by the linker.
    #[link_name = "__ehdr_start"]
    static EHDR: [u8; 64];
}

/// The library's writable data, .bss included: its tables are no roots.
pub fn data() -> AddrRange {
    // SAFETY: the linker defines it in each object, hidden; the header and the program headers are in the first page.
    let start = unsafe { EHDR.as_ptr() } as usize;
    // SAFETY: as above: an ELF64 header's table offset, entry size and count.
    let (table, size, count) = unsafe {
        let field = |at: usize| (start + at) as *const u16;
        (start + ((start + 32) as *const usize).read(), usize::from(field(54).read()), usize::from(field(56).read()))
    };
    let mut range = AddrRange::new(usize::MAX, 0);
    for header in (0..count).map(|i| table + i * size) {
        // SAFETY: a program header: type, flags, then offset, address, physical address, file size, memory size.
        let (kind, flags, address, len) = unsafe {
            let words = header as *const u32;
            (
                words.read(),
                words.add(1).read(),
                ((header + 16) as *const usize).read(),
                ((header + 40) as *const usize).read(),
            )
        };
        if kind == 1 && flags & 2 != 0 {
            range.start = range.start.min(start + address);
            range.end = range.end.max((start + address + len).next_multiple_of(4096));
        }
    }
    range
}

/// Whether an address is code of ours.
pub fn holds(addr: usize) -> bool {
    // SAFETY: as in `data`.
    let start = unsafe { EHDR.as_ptr() } as usize;
    (start..data().end).contains(&addr)
}

/// Ranges that the program's calls have told us of. Added to by any thread, read by the snapshot child.
pub struct Ranges {
    places: [(AtomicUsize, AtomicUsize); Self::ROOM],
    used: AtomicU32,
}

impl Ranges {
    const ROOM: usize = 256;

    const fn new() -> Self {
        Self { places: [const { (AtomicUsize::new(0), AtomicUsize::new(0)) }; Self::ROOM], used: AtomicU32::new(0) }
    }

    fn add(&self, range: AddrRange) {
        let known = self.iter().any(|known| known.start <= range.start && range.end <= known.end);
        if !known && let Some(place) = self.places.get(self.used.fetch_add(1, Relaxed) as usize) {
            place.1.store(range.end, Relaxed);
            place.0.store(range.start, Release);
        }
    }

    pub fn iter(&self) -> impl Iterator<Item = AddrRange> + '_ {
        let used = (self.used.load(Relaxed) as usize).min(Self::ROOM);
        let places = self.places[..used].iter();
        places
            .map(|place| AddrRange::new(place.0.load(Acquire), place.1.load(Relaxed)))
            .filter(|range| range.start != 0)
    }

    /// Those that found no place.
    pub fn lost(&self) -> usize {
        (self.used.load(Relaxed) as usize).saturating_sub(Self::ROOM)
    }
}

/// Memory that the program got by sbrk itself.
pub static SBRK: Ranges = Ranges::new();
/// Memory that the copy has not, or not as it was (MADV_DONTFORK, MADV_WIPEONFORK).
pub static NOT_FORKED: Ranges = Ranges::new();

/// sbrk: the program's (glibc's malloc does not come here); what it gives is memory that the program uses as it likes.
#[unsafe(no_mangle)]
pub extern "C" fn sbrk(increment: isize) -> usize {
    let start = crate::real::sbrk(increment);
    if increment > 0 && start != usize::MAX {
        SBRK.add(AddrRange::new(start, start + increment as usize));
    }
    start
}

/// madvise: the program's; we note what a fork leaves out.
#[unsafe(no_mangle)]
pub extern "C" fn madvise(start: usize, len: usize, advice: c_int) -> c_int {
    const DONTFORK: c_int = 10;
    const WIPEONFORK: c_int = 18;
    let result = crate::real::madvise(start, len, advice);
    if result == 0 && matches!(advice, DONTFORK | WIPEONFORK) {
        NOT_FORKED.add(AddrRange::new(start, (start + len).next_multiple_of(4096)));
    }
    result
}
