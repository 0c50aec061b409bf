//! libleakscan_mimalloc.so: mimalloc, for `allocator=bundled`. libleakscan.so loads it from beside itself and takes its functions
//! from [`LEAKSCAN_ALLOCATOR`]; it exports nothing else, so that it stands in for nobody's malloc by being loaded.
//!
//! A library of its own: mimalloc needs stdio, mutexes and a constructor, which no program gets that has not asked for it.
#![no_std]
#![allow(unsafe_code)] // names C functions

use core::ffi::c_void;
use libmimalloc_sys as _;

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // There is no code here that could.
    loop {}
}

macro_rules! functions {
    ($($name:ident),+ $(,)?) => {
        unsafe extern "C" {
            $(fn $name();)+
        }

        /// Addresses of mimalloc's functions.
        #[repr(transparent)]
        pub struct Functions([*const c_void; [$(stringify!($name)),+].len()]);
        // SAFETY: addresses of code, which are only read.
        unsafe impl Sync for Functions {}

        /// In the order that libleakscan.so takes them in (src/preload/bundled.rs).
        #[unsafe(no_mangle)]
        pub static LEAKSCAN_ALLOCATOR: Functions = Functions([$($name as *const c_void),+]);
    };
}

functions! {
    mi_malloc,
    mi_calloc,
    mi_realloc,
    mi_memalign,
    mi_free,
    mi_posix_memalign,
    mi_aligned_alloc,
    mi_valloc,
    mi_pvalloc,
    mi_usable_size,
}
