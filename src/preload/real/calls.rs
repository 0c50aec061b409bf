//! Calls of the real functions, each with its C prototype.
#![allow(unsafe_code)] // calls foreign functions by address

use super::*;

/// For who knows that the real functions are known.
macro_rules! call_ready {
    ($slot:ident, fn($($arg:ident: $ty:ty),*) -> $out:ty) => {{
        // SAFETY: the slot holds the address of the function of that name, whose C prototype this is.
        let function = unsafe { core::mem::transmute::<usize, unsafe extern "C" fn($($ty),*) -> $out>($slot.load(Relaxed)) };
        // SAFETY: the program gave these arguments.
        unsafe { function($($arg),*) }
    }};
}

macro_rules! call {
    ($slot:ident, fn($($arg:ident: $ty:ty),*) -> $out:ty) => {{
        ready();
        call_ready!($slot, fn($($arg: $ty),*) -> $out)
    }};
}

#[inline(always)]
pub fn malloc_ready(size: usize) -> usize {
    call_ready!(MALLOC, fn(size: usize) -> usize)
}
#[inline(always)]
pub fn calloc_ready(count: usize, size: usize) -> usize {
    call_ready!(CALLOC, fn(count: usize, size: usize) -> usize)
}
#[inline(always)]
pub fn usable_size_ready(addr: usize) -> usize {
    call_ready!(MALLOC_USABLE_SIZE, fn(addr: usize) -> usize)
}
#[inline(always)]
pub fn free_ready(addr: usize) {
    call_ready!(FREE, fn(addr: usize) -> ());
}
#[inline(always)]
pub fn malloc(size: usize) -> usize {
    call!(MALLOC, fn(size: usize) -> usize)
}
#[inline(always)]
pub fn calloc(count: usize, size: usize) -> usize {
    call!(CALLOC, fn(count: usize, size: usize) -> usize)
}
#[inline(always)]
pub fn realloc(ptr: usize, size: usize) -> usize {
    call!(REALLOC, fn(ptr: usize, size: usize) -> usize)
}
#[inline(always)]
pub fn free(ptr: usize) {
    call!(FREE, fn(ptr: usize) -> ())
}
pub fn memalign(align: usize, size: usize) -> usize {
    call!(MEMALIGN, fn(align: usize, size: usize) -> usize)
}
pub fn posix_memalign(out: *mut usize, align: usize, size: usize) -> c_int {
    call!(POSIX_MEMALIGN, fn(out: *mut usize, align: usize, size: usize) -> c_int)
}
pub fn aligned_alloc(align: usize, size: usize) -> usize {
    call!(ALIGNED_ALLOC, fn(align: usize, size: usize) -> usize)
}
pub fn valloc(size: usize) -> usize {
    call!(VALLOC, fn(size: usize) -> usize)
}
pub fn pvalloc(size: usize) -> usize {
    call!(PVALLOC, fn(size: usize) -> usize)
}
/// Usable size by the allocator's own function. 0 if it has none.
pub fn usable_size(ptr: usize) -> usize {
    ready();
    if MALLOC_USABLE_SIZE.load(Relaxed) == 0 {
        return 0;
    }
    call!(MALLOC_USABLE_SIZE, fn(ptr: usize) -> usize)
}
pub fn pthread_create(thread: usize, attr: usize, start: usize, argument: usize) -> c_int {
    call!(PTHREAD_CREATE, fn(thread: usize, attr: usize, start: usize, argument: usize) -> c_int)
}
/// jemalloc's, and what they do by the functions that each allocator has.
pub fn mallocx(size: usize, flags: c_int) -> usize {
    const ALIGNMENT: c_int = 0x3f;
    const ZERO: c_int = 0x40;
    ready();
    if MALLOCX.load(Relaxed) != 0 {
        return call_ready!(MALLOCX, fn(size: usize, flags: c_int) -> usize);
    }
    let align = 1 << (flags & ALIGNMENT);
    let addr = if align > 16 { memalign(align, size) } else { malloc(size) };
    if addr != 0 && flags & ZERO != 0 {
        // SAFETY: the new block.
        unsafe { (addr as *mut u8).write_bytes(0, size) };
    }
    addr
}
pub fn rallocx(old: usize, size: usize, flags: c_int) -> usize {
    if RALLOCX.load(Relaxed) != 0 {
        return call!(RALLOCX, fn(old: usize, size: usize, flags: c_int) -> usize);
    }
    let new = mallocx(size, flags);
    if new != 0 {
        // SAFETY: a block that the program gives up, and a new one.
        unsafe { (new as *mut u8).copy_from_nonoverlapping(old as *const u8, usable_size(old).min(size)) };
        free(old);
    }
    new
}
pub fn xallocx(addr: usize, size: usize, extra: usize, flags: c_int) -> usize {
    if XALLOCX.load(Relaxed) == 0 {
        return usable_size(addr);
    }
    call!(XALLOCX, fn(addr: usize, size: usize, extra: usize, flags: c_int) -> usize)
}
pub fn dallocx(addr: usize, flags: c_int) {
    if DALLOCX.load(Relaxed) == 0 {
        return free(addr);
    }
    call!(DALLOCX, fn(addr: usize, flags: c_int) -> ())
}
pub fn sdallocx(addr: usize, size: usize, flags: c_int) {
    if SDALLOCX.load(Relaxed) == 0 {
        return free(addr);
    }
    call!(SDALLOCX, fn(addr: usize, size: usize, flags: c_int) -> ())
}
/// strdup, but an allocator's own: `None`.
pub fn strdup(text: usize) -> Option<usize> {
    ready();
    (STRDUP.load(Relaxed) != 0).then(|| call_ready!(STRDUP, fn(text: usize) -> usize))
}
pub fn strndup(text: usize, most: usize) -> Option<usize> {
    ready();
    (STRNDUP.load(Relaxed) != 0).then(|| call_ready!(STRNDUP, fn(text: usize, most: usize) -> usize))
}
pub fn sigaltstack(new: usize, old: usize) -> c_int {
    call!(SIGALTSTACK, fn(new: usize, old: usize) -> c_int)
}
pub fn dlclose(handle: usize) -> c_int {
    call!(DLCLOSE, fn(handle: usize) -> c_int)
}
pub fn brk(end: usize) -> c_int {
    call!(BRK, fn(end: usize) -> c_int)
}
pub fn sbrk(increment: isize) -> usize {
    call!(SBRK, fn(increment: isize) -> usize)
}
/// While the real functions are being looked up, an allocator that is called meanwhile maps memory.
fn by_kernel(result: Result<usize, Errno>) -> usize {
    unsafe extern "C" {
        fn __errno_location() -> *mut c_int;
    }
    result.unwrap_or_else(|error| {
        // SAFETY: glibc gives the calling thread's own errno.
        unsafe { *__errno_location() = error.0 };
        usize::MAX
    })
}
pub fn mmap(addr: usize, len: usize, protection: c_int, flags: c_int, file: c_int, offset: usize) -> usize {
    ready();
    if MMAP.load(Relaxed) == 0 {
        let args = [addr, len, protection as usize, flags as usize, file as usize, offset];
        // SAFETY: the program gave these arguments.
        return by_kernel(unsafe { sys::call(sys::nr::MMAP, args) });
    }
    call!(MMAP, fn(addr: usize, len: usize, protection: c_int, flags: c_int, file: c_int, offset: usize) -> usize)
}
pub fn munmap(addr: usize, len: usize) -> c_int {
    ready();
    if MUNMAP.load(Relaxed) == 0 {
        // SAFETY: as above.
        return by_kernel(unsafe { sys::call(sys::nr::MUNMAP, [addr, len, 0, 0, 0, 0]) }) as c_int;
    }
    call!(MUNMAP, fn(addr: usize, len: usize) -> c_int)
}
pub fn madvise(start: usize, len: usize, advice: c_int) -> c_int {
    ready();
    if MADVISE.load(Relaxed) == 0 {
        // SAFETY: as above.
        return by_kernel(unsafe { sys::call(sys::nr::MADVISE, [start, len, advice as usize, 0, 0, 0]) }) as c_int;
    }
    call!(MADVISE, fn(start: usize, len: usize, advice: c_int) -> c_int)
}
/// # Safety
/// `context` is a `ucontext_t` with a stack.
pub unsafe fn makecontext(context: usize, routine: usize, arguments: c_int) {
    call!(MAKECONTEXT, fn(context: usize, routine: usize, arguments: c_int) -> ())
}
/// # Safety
/// As the C function of that name.
pub unsafe fn sigaction(signal: c_int, new: *const Action, old: *mut Action) -> c_int {
    call!(SIGACTION, fn(signal: c_int, new: *const Action, old: *mut Action) -> c_int)
}
pub fn signal(signal: c_int, handler: usize) -> usize {
    call!(SIGNAL, fn(signal: c_int, handler: usize) -> usize)
}
pub fn chroot(path: *const c_char) -> c_int {
    call!(CHROOT, fn(path: *const c_char) -> c_int)
}
pub fn raise(signal: c_int) -> c_int {
    call!(RAISE, fn(signal: c_int) -> c_int)
}
pub fn kill(process: c_int, signal: c_int) -> c_int {
    call!(KILL, fn(process: c_int, signal: c_int) -> c_int)
}
pub(super) extern "C" fn kill_by_kernel(process: c_int, signal: c_int) -> c_int {
    // SAFETY: the program gave these arguments.
    by_kernel(unsafe { sys::call(sys::nr::KILL, [process as usize, signal as usize, 0, 0, 0, 0]) }) as c_int
}
/// What an allocator calls while the real functions are being looked up.
pub(super) extern "C" fn syscall_by_kernel(
    number: usize,
    a: usize,
    b: usize,
    c: usize,
    d: usize,
    e: usize,
    f: usize,
) -> usize {
    // SAFETY: the program gave these arguments.
    by_kernel(unsafe { sys::call(number, [a, b, c, d, e, f]) })
}
pub fn syscall(number: c_long, a: usize, b: usize, c: usize, d: usize, e: usize, f: usize) -> c_long {
    call!(SYSCALL, fn(number: c_long, a: usize, b: usize, c: usize, d: usize, e: usize, f: usize) -> c_long)
}
pub fn prctl(option: c_int, a: usize, b: usize, c: usize, d: usize) -> c_int {
    ready();
    if PRCTL.load(Relaxed) == 0 {
        // SAFETY: the program gave these arguments.
        return by_kernel(unsafe { sys::call(sys::nr::PRCTL, [option as usize, a, b, c, d, 0]) }) as c_int;
    }
    call!(PRCTL, fn(option: c_int, a: usize, b: usize, c: usize, d: usize) -> c_int)
}
pub fn setuid(user: u32) -> c_int {
    call!(SETUID, fn(user: u32) -> c_int)
}
pub fn seteuid(user: u32) -> c_int {
    call!(SETEUID, fn(user: u32) -> c_int)
}
pub fn setreuid(real_user: u32, user: u32) -> c_int {
    call!(SETREUID, fn(real_user: u32, user: u32) -> c_int)
}
pub fn setresuid(real_user: u32, user: u32, saved: u32) -> c_int {
    call!(SETRESUID, fn(real_user: u32, user: u32, saved: u32) -> c_int)
}
pub fn underscore_exit(status: c_int) {
    call!(UNDERSCORE_EXIT, fn(status: c_int) -> ())
}
pub fn abort() -> ! {
    ready();
    if ABORT.load(Relaxed) != 0 {
        call_ready!(ABORT, fn() -> ());
    }
    // It does not come back, and is not known while names are being looked up.
    loop {
        // SAFETY: ends this process.
        unsafe { sys::syscall(sys::nr::EXIT_GROUP, [134, 0, 0, 0, 0, 0]) };
    }
}
/// C23's `free_sized` where the allocator has it, else `free`.
pub fn free_sized(ptr: usize, size: usize) {
    if FREE_SIZED.load(Relaxed) == 0 {
        return free(ptr);
    }
    call!(FREE_SIZED, fn(ptr: usize, size: usize) -> ())
}
pub fn free_aligned_sized(ptr: usize, align: usize, size: usize) {
    if FREE_ALIGNED_SIZED.load(Relaxed) == 0 {
        return free(ptr);
    }
    call!(FREE_ALIGNED_SIZED, fn(ptr: usize, align: usize, size: usize) -> ())
}

/// Whether a loaded file is at `pc`; what glibc knows of it is written to `out`.
pub(super) fn dl_find_object(pc: usize, out: usize) -> bool {
    DL_FIND_OBJECT.load(Relaxed) != 0 && call!(DL_FIND_OBJECT, fn(pc: usize, out: usize) -> c_int) == 0
}
