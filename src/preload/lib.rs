//! libleakscan.so: the only crate with exported names; nothing links it.
//!
//! It promises the program: no lock on the default path, no allocation, no panic, no thread, errno as it was. If
//! something fails inside us, the program goes on, and the report says so.
#![no_std]
#![allow(unsafe_code)] // exported names, constructors

mod alternate;
mod bundled;
mod check;
mod child;
mod clone;
mod contexts;
mod deepbind;
mod doorplate;
mod emit;
mod facts;
mod fast;
mod fatal;
mod forget;
mod gather;
mod given_back;
mod glance;
mod heaps;
mod helper;
mod interpose;
mod kernel;
mod keys;
mod ledger;
mod misuse;
mod modules;
mod offsets;
mod operators;
mod own;
mod pending;
mod pools;
mod real;
mod regions;
mod report_file;
mod sandbox;
mod settings;
mod shims;
mod snapshot;
mod stack;
mod state;
mod stop;
mod symbols;
mod taken_in;
mod threads;
mod tls;
mod trigger;
mod unforked;
mod userfaultfd;
mod users;

use core::ffi::c_char;
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
    if !state::on() {
        return;
    }
    tls::init();
    real::hide_what_is_missing();
    // SAFETY: glibc passes the environment, a list of C strings that ends in a null pointer; no other thread runs yet.
    let Some(settings) = (unsafe { settings::init(environment) }) else { return };
    let options = &settings.options;
    if options.allocator == "bundled" {
        bundled::load();
    }
    state::SAMPLE.store(options.sample, Relaxed);
    state::DEPTH.store(options.depth as u32, Relaxed);
    state::ZERO.store(options.zero == "1", Relaxed);
    state::CLEAR.store(if options.zero == "used" { 8 << 10 } else { 0 }, Relaxed);
    if options.forget != 0 {
        forget::init();
        state::FORGET.store(options.forget, Relaxed);
    }
    if !options.follow {
        // SAFETY: as above.
        unsafe { settings::leave_environment(environment) };
    }
    if options.unwind_check != 0 {
        check::init();
        state::UNWIND_CHECK.store(options.unwind_check, Relaxed);
    }
    let is_interposed = real::is_interposed();
    state::BYPASSED.store(!is_interposed, Relaxed);
    state::PRELOADED_BEFORE.store(!is_interposed && !real::is_programs_own(), Relaxed);
    doorplate::hang(settings);
    threads::init();
    stop::signal::init(options.signal);
    if options.fatal && options.scan_at_exit {
        fatal::init();
    }
    // SAFETY: plain functions that live as long as the library; no library handle to unregister them by.
    unsafe {
        __register_atfork(Some(before_fork), Some(parent_after_fork), Some(child_after_fork), core::ptr::null());
        __cxa_at_quick_exit(quick_end, core::ptr::null());
    }
    trigger::start();
    fast::open();
}

unsafe extern "C" {
    fn __register_atfork(
        prepare: Option<unsafe extern "C" fn()>,
        parent: Option<unsafe extern "C" fn()>,
        child: Option<unsafe extern "C" fn()>,
        library: *const core::ffi::c_void,
    ) -> i32;
    fn __cxa_at_quick_exit(
        function: unsafe extern "C" fn(*mut core::ffi::c_void),
        library: *const core::ffi::c_void,
    ) -> i32;
}

/// Takes our cold locks. Registered first, so it runs last before a fork: no handler of the program's runs while we hold them.
unsafe extern "C" fn before_fork() {
    let inside = sandbox::enter();
    threads::before_fork(inside.is_some());
    drop(inside);
    tls::before_fork();
    modules::before_fork();
}

unsafe extern "C" fn parent_after_fork() {
    // SAFETY: glibc calls it in the thread that forked, after `before_fork`.
    unsafe {
        modules::after_fork();
        tls::after_fork();
    }
}

/// The child is a process of its own: its report, its clock, its scans.
unsafe extern "C" fn child_after_fork() {
    // SAFETY: as in the parent; nobody else is in this process.
    unsafe {
        bundled::heap().forked();
        state::TRACKER.table.forked();
        parent_after_fork();
    }
    sandbox::forked();
    if sandbox::is_closed() {
        return;
    }
    fatal::forked();
    tls::forked();
    threads::forked();
    ledger::forget();
    settings::FORKED.store(true, Relaxed);
    settings::renew();
    trigger::start();
}

/// _exit: the program's, after the last scan. (exit() does not come here, but to `end`.)
#[unsafe(no_mangle)]
pub extern "C" fn _exit(status: i32) {
    trigger::last();
    real::underscore_exit(status);
}

/// C's other name for it.
#[unsafe(no_mangle)]
pub extern "C" fn _Exit(status: i32) {
    _exit(status);
}

/// abort: the program's, after a last scan. C++'s uncaught exceptions come here, and Rust's panics that abort; libc's own (assert,
/// a damaged heap) do not. A handler of SIGABRT may jump out of it, so that it is not the end for certain.
#[unsafe(no_mangle)]
pub extern "C" fn abort() -> ! {
    // Where SIGABRT comes to us, that is the end.
    if !fatal::handles(fatal::SIGABRT) {
        trigger::maybe_last();
    }
    real::abort()
}

unsafe extern "C" fn quick_end(_: *mut core::ffi::c_void) {
    trigger::last();
}

/// The program's own call of a scan; waits until the report is written. 1: a scan was made. Declared in leakscan.h.
#[unsafe(no_mangle)]
pub extern "C" fn leakscan_scan() -> i32 {
    i32::from(trigger::request(leakscan_report::Trigger::Api))
}

#[used]
#[unsafe(link_section = ".fini_array")]
static END: unsafe extern "C" fn() = end;

/// Runs when the program exits: the last scan. With the self-check of stacks on, says what was compared.
unsafe extern "C" fn end() {
    trigger::last();
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
