//! Whose the real functions are: glibc's, another library's, the program's own.
#![allow(unsafe_code)] // asks the dynamic linker

use super::{__libc_malloc, MALLOC, dladdr1, dlsym, forget_error, gnu_get_libc_version, mapped_file, next};
use crate::symbols::{self, Search, Symbol};
use core::ffi::{CStr, c_int, c_void};
use core::sync::atomic::Ordering::Relaxed;

/// Whether the program's own calls of malloc come to us: not if the executable has one itself.
pub fn is_interposed() -> bool {
    let first = first(c"malloc");
    crate::own::holds(first as usize) || {
        // An executable at a fixed address has a stub that counts as malloc's address, with an entry that is not defined; it
        // leads to ours.
        let (mut info, mut symbol) = ([0usize; 4], core::ptr::null::<Symbol>());
        const SYMENT: c_int = 1;
        // SAFETY: dladdr1 writes a Dl_info, of 4 words, and the address of a symbol's entry in the file's own table.
        let known = unsafe { dladdr1(first, info.as_mut_ptr().cast(), &raw mut symbol, SYMENT) } != 0;
        // SAFETY: the entry lies in the executable.
        known && unsafe { symbol.as_ref() }.is_some_and(|symbol| symbol.section == 0)
    }
}

/// Whether the malloc that is called lies in the program's own file.
pub fn is_programs_own() -> bool {
    let program = symbols::files().next().and_then(|program| program.segments());
    program.is_some_and(|program| program.contains(first(c"malloc") as usize))
}

/// Without jemalloc nobody is to find its functions, although we have some.
pub fn hide_what_is_missing() {
    symbols::take_back(&[c"mallocx", c"rallocx", c"xallocx", c"dallocx", c"sdallocx"], |name| {
        let is_missing = next(&Search::behind_us(), name) == 0;
        if is_missing {
            forget_error();
        }
        is_missing
    });
}

/// Whether this is a Python that serves small blocks from arenas of its own, out of our sight.
pub fn has_pymalloc() -> bool {
    Search::new().may_exist(c"PyObject_Malloc")
}

/// The first definition of a name: the executable's, if it has one.
fn first(name: &CStr) -> *mut c_void {
    const DEFAULT: *mut c_void = core::ptr::null_mut();
    // SAFETY: dlsym reads the name.
    unsafe { dlsym(DEFAULT, name.as_ptr()) }
}

/// Whether the blocks come from glibc's malloc, whose chunk headers we may read.
pub fn is_glibc() -> bool {
    let malloc = MALLOC.load(Relaxed);
    // mimalloc and tcmalloc define glibc's inner names, too: the file tells, by a name that only glibc has.
    match (mapped_file(malloc), mapped_file(gnu_get_libc_version as *const () as usize)) {
        (Some(file), Some(libc)) => file == libc,
        _ => malloc == __libc_malloc as *const () as usize,
    }
}
