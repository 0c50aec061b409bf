//! The loaded file that holds an address.
#![allow(unsafe_code)] // asks the dynamic linker

use super::{dl_find_object, dladdr1};
use crate::symbols::Symbol;
use core::ffi::{CStr, c_char, c_void};
use leakscan_engine::AddrRange;

/// `struct dl_find_object` of <dlfcn.h>.
#[repr(C)]
#[derive(Default)]
struct Found {
    flags: u64,
    map: [usize; 2],
    link_map: usize,
    eh_frame: usize,
    reserved: [u64; 7],
}

/// The path of the loaded file that holds `addr`, as far as it fits; empty if it cannot be told.
pub fn path_of(addr: usize, into: &mut [u8]) -> &[u8] {
    let (mut info, mut symbol) = ([0usize; 4], core::ptr::null::<Symbol>());
    // SAFETY: dladdr1 writes a Dl_info, of 4 words, whose first is the path.
    let path = unsafe {
        if dladdr1(addr as *const c_void, info.as_mut_ptr().cast(), &raw mut symbol, 0) == 0 {
            return &[];
        }
        CStr::from_ptr(info[0] as *const c_char).to_bytes()
    };
    let len = path.len().min(into.len());
    into[..len].copy_from_slice(&path[..len]);
    &into[..len]
}

/// Where the loaded file that holds `addr` is mapped.
pub fn mapped_file(addr: usize) -> Option<AddrRange> {
    found(addr).map(|found| AddrRange::new(found.map[0], found.map[1]))
}

/// The loaded file at an address, for the unwinder.
pub fn find_object(pc: usize) -> Option<leakscan_engine::unwind::Object> {
    found(pc).map(|found| leakscan_engine::unwind::Object {
        eh_frame_hdr: found.eh_frame,
        start: found.map[0],
        end: found.map[1],
    })
}

/// By glibc's lock-free lookup (2.35 and later).
fn found(pc: usize) -> Option<Found> {
    let mut found = Found::default();
    dl_find_object(pc, &raw mut found as usize).then_some(found)
}
