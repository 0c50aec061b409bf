//! libleakscan.so: the only crate with exported names; nothing links it.
//!
//! It promises the program: no lock on the default path, no allocation, no panic, no thread, errno as it was. So far it tracks
//! blocks and stacks; it takes no snapshot and writes no report yet.
#![no_std]
#![allow(unsafe_code)] // exported names, constructors
#![allow(dead_code)] // what the snapshot will use, which is not written yet

mod check;
mod interpose;
mod real;
#[cfg(target_arch = "x86_64")]
#[path = "shims/x86_64.rs"]
mod shims;
mod state;
mod threads;
mod tls;
mod trigger;

use core::ffi::{CStr, c_char};
use core::sync::atomic::Ordering::Relaxed;

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // SAFETY: ends this process only; nothing of ours panics by design, and there is no frame to go back to.
    unsafe { leakscan_engine::sys::syscall(leakscan_engine::sys::nr::EXIT_GROUP, [134, 0, 0, 0, 0, 0]) };
    loop {}
}

/// There is no heap for us: whatever would allocate gets nothing.
struct NoHeap;

// SAFETY: a null pointer is how an allocator refuses; it never hands out memory that `dealloc` could be given.
unsafe impl core::alloc::GlobalAlloc for NoHeap {
    unsafe fn alloc(&self, _: core::alloc::Layout) -> *mut u8 {
        core::ptr::null_mut()
    }
    unsafe fn dealloc(&self, _: *mut u8, _: core::alloc::Layout) {}
}

#[global_allocator]
static NO_HEAP: NoHeap = NoHeap;

#[used]
#[unsafe(link_section = ".init_array")]
static START: unsafe extern "C" fn(i32, *const *const c_char, *const *const c_char) = start;

/// Runs when the library is loaded, after its own relocation.
unsafe extern "C" fn start(_: i32, _: *const *const c_char, environment: *const *const c_char) {
    // SAFETY: glibc passes the environment, a list of C strings that ends in a null pointer.
    let text = unsafe { option_text(environment) }.unwrap_or("");
    let options = leakscan_options::parse(text, |_| {});
    state::SAMPLE.store(options.sample, Relaxed);
    state::DEPTH.store(options.depth as u32, Relaxed);
    if state::on() {
        tls::init();
        // SAFETY: three plain functions that live as long as the library; no library handle to unregister them by.
        unsafe { __register_atfork(Some(before_fork), Some(after_fork), Some(after_fork), core::ptr::null()) };
        if options.unwind_check != 0 {
            check::init();
            state::UNWIND_CHECK.store(options.unwind_check, Relaxed);
        }
    }
}

unsafe extern "C" {
    fn __register_atfork(
        prepare: Option<unsafe extern "C" fn()>,
        parent: Option<unsafe extern "C" fn()>,
        child: Option<unsafe extern "C" fn()>,
        library: *const core::ffi::c_void,
    ) -> i32;
}

/// Takes our cold locks. Registered first, so it runs last before a fork: no handler of the program's runs while we hold them.
unsafe extern "C" fn before_fork() {
    state::TRACKER.table.before_fork();
    tls::before_fork();
}

unsafe extern "C" fn after_fork() {
    // SAFETY: glibc calls it in the thread that forked, after `before_fork`, in parent and child.
    unsafe {
        tls::after_fork();
        state::TRACKER.table.after_fork();
    }
}

unsafe fn option_text<'a>(mut environment: *const *const c_char) -> Option<&'a str> {
    loop {
        // SAFETY: the caller promises a list that ends in null, of strings that end in zero.
        let entry = unsafe { environment.as_ref()?.as_ref()? };
        // SAFETY: as above.
        let entry = unsafe { CStr::from_ptr(entry) }.to_bytes();
        if let Some(text) = entry.strip_prefix(b"LEAKSCAN_OPTIONS=") {
            return core::str::from_utf8(text).ok();
        }
        // SAFETY: the entry was not the null at the end.
        environment = unsafe { environment.add(1) };
    }
}

#[used]
#[unsafe(link_section = ".fini_array")]
static END: unsafe extern "C" fn() = end;

/// Runs when the program exits. For the self-check of stacks: says what was compared.
unsafe extern "C" fn end() {
    if state::UNWIND_CHECK.load(Relaxed) == 0 {
        return;
    }
    let error = leakscan_engine::sys::Stderr;
    let counts = [check::COMPARED.load(Relaxed), check::DIFFERENT.load(Relaxed), state::UNWINDER.unsupported()];
    for (name, count) in
        [&b"leakscan: unwind_check: compared "[..], b", different ", b", unsupported "].iter().zip(counts)
    {
        error.write(name);
        error.write_decimal(count);
    }
    error.write(b"\n");
}
