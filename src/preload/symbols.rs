//! Whether any loaded file defines a name, by its own hash table.
//!
//! dlsym of a name that nobody defines leaves an error behind, whose text is made by asprintf and gettext: twenty such names, and the
//! start of a process was a third longer for it.
#![allow(unsafe_code)] // reads the loader's list and the files' dynamic sections

use crate::own;
use core::ffi::{CStr, c_char, c_int};

/// `struct r_debug` and `struct link_map` of <link.h>, as far as they are public.
#[repr(C)]
struct Debug {
    version: c_int,
    first: *const Map,
}
#[repr(C)]
struct Map {
    base: usize,
    name: *const c_char,
    dynamic: *const Entry,
    next: *const Map,
    previous: *const Map,
}
/// `Elf64_Dyn`.
#[repr(C)]
struct Entry {
    tag: usize,
    value: usize,
}

unsafe extern "C" {
    static _r_debug: Debug;
}

/// Whether dlsym with RTLD_NEXT may find the name: a file other than ours defines it, or has no table that would tell.
pub fn may_exist(name: &CStr) -> bool {
    let bytes = name.to_bytes();
    let hash = bytes.iter().fold(5381u32, |hash, byte| hash.wrapping_mul(33).wrapping_add(u32::from(*byte)));
    // SAFETY: ld.so's list of what is loaded, kept for debuggers; entries come and go by dlopen and dlclose only.
    let mut map = unsafe { _r_debug.first };
    // SAFETY: as above.
    while let Some(file) = unsafe { map.as_ref() } {
        // SAFETY: the file is loaded.
        if !own::holds(file.dynamic as usize) && unsafe { defines(file, bytes, hash) } {
            return true;
        }
        map = file.next;
    }
    false
}

/// By the table that `DT_GNU_HASH` names: a Bloom filter, buckets, and chains of hashes whose last has bit 0 set.
///
/// # Safety
/// `file` is loaded.
unsafe fn defines(file: &Map, name: &[u8], hash: u32) -> bool {
    const STRINGS: usize = 5;
    const SYMBOLS: usize = 6;
    const GNU_HASH: usize = 0x6fff_fef5;
    let (mut table, mut symbols, mut strings) = (0, 0, 0);
    let mut entry = file.dynamic;
    // SAFETY: a dynamic section ends with a tag of 0.
    while let Some(Entry { tag: tag @ 1.., value }) = unsafe { entry.as_ref() } {
        match *tag {
            GNU_HASH => table = *value,
            SYMBOLS => symbols = *value,
            STRINGS => strings = *value,
            _ => {}
        }
        // SAFETY: this was not the last.
        entry = unsafe { entry.add(1) };
    }
    if table == 0 || symbols == 0 || strings == 0 {
        return true;
    }
    // ld.so has made addresses of them, but not in the kernel's own file.
    let [table, symbols, strings] =
        [table, symbols, strings].map(|at| if at < file.base { at + file.base } else { at });
    // SAFETY: all that follows lies in the file's tables, as its linker has laid them out.
    unsafe {
        let word = |at: usize| *((table + at * 4) as *const u32);
        let (buckets, first, filters, shift) = (word(0), word(1), word(2), word(3));
        if buckets == 0 || filters == 0 {
            return true;
        }
        let filter = *((table + 16 + (hash / 64 % filters) as usize * 8) as *const u64);
        if filter >> (hash % 64) & filter >> ((hash >> (shift % 32)) % 64) & 1 == 0 {
            return false;
        }
        let chains = 4 + filters as usize * 2;
        let mut at = word(chains + (hash % buckets) as usize);
        if at < first {
            return false;
        }
        loop {
            let link = word(chains + buckets as usize + (at - first) as usize);
            if (link ^ hash) >> 1 == 0 {
                let symbol = symbols + at as usize * 24;
                let text = (strings + *(symbol as *const u32) as usize) as *const c_char;
                let section = *((symbol + 6) as *const u16);
                if section != 0 && CStr::from_ptr(text).to_bytes() == name {
                    return true;
                }
            }
            if link & 1 == 1 {
                return false;
            }
            at += 1;
        }
    }
}
