//! What is ours in the address space: the library's own code and data.
#![allow(unsafe_code)] // reads our own ELF header

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
