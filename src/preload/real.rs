//! The real functions: the next ones in the search order after ours.
//!
//! Resolved all at once by the first call that needs one, whichever that is; there is no initialisation to miss. While they
//! are being resolved, dlsym itself may allocate: that is served by glibc's own `__libc_*`.
#![allow(unsafe_code)] // calls foreign functions by address

use crate::stop::signal::Action;
use crate::symbols::{self, Search, Symbol};
use core::ffi::{CStr, c_char, c_int, c_long, c_void};
use core::sync::atomic::{AtomicU8, AtomicUsize, Ordering::Acquire, Ordering::Relaxed, Ordering::Release};
use leakscan_engine::AddrRange;
use leakscan_engine::sys::{self, Errno};

unsafe extern "C" {
    fn __libc_malloc(size: usize) -> *mut c_void;
    fn __libc_calloc(count: usize, size: usize) -> *mut c_void;
    fn __libc_realloc(ptr: *mut c_void, size: usize) -> *mut c_void;
    fn __libc_memalign(align: usize, size: usize) -> *mut c_void;
    fn __libc_free(ptr: *mut c_void);
    fn __sbrk(increment: isize) -> *mut c_void;
    fn dlopen(file: *const c_char, mode: c_int) -> *mut c_void;
    fn dlsym(handle: *mut c_void, name: *const c_char) -> *mut c_void;
    fn dladdr1(addr: *const c_void, info: *mut c_void, symbol: *mut *const Symbol, flags: c_int) -> c_int;
    fn dlerror() -> *mut c_char;
    fn gnu_get_libc_version() -> *const c_char;
    fn __sigaction(signal: c_int, new: *const Action, old: *mut Action) -> c_int;
    fn bsd_signal(signal: c_int, handler: usize) -> usize;
    fn gsignal(signal: c_int) -> c_int;
    fn __strdup(text: usize) -> usize;
    fn __strndup(text: usize, most: usize) -> usize;
}

const NEXT: *mut c_void = -1isize as *mut c_void;

static RESOLVED: AtomicU8 = AtomicU8::new(0);

/// The address of the next definition of `name`, 0 if there is none.
fn next(search: &Search, name: &CStr) -> usize {
    if !search.may_exist(name) {
        return 0;
    }
    // SAFETY: dlsym reads the name; RTLD_NEXT means the objects after the one that calls, which is ours.
    unsafe { dlsym(NEXT, name.as_ptr()) as usize }
}

macro_rules! functions {
    ($($slot:ident, $symbol:literal $(, $initial:path)?;)+) => {
        /// Every slot and its symbol.
        static ALL: &[(&AtomicUsize, &CStr)] = &[$((&$slot, name(concat!($symbol, "\0")))),+];
        $(
            #[doc = concat!("Address of the real `", $symbol, "`.")]
            pub static $slot: AtomicUsize = AtomicUsize::new(0);
        )+
        fn resolve_all() {
            // Until dlsym has answered, what it allocates itself goes straight to glibc.
            $($($slot.store($initial as *const () as usize, Relaxed);)?)+
            let (mut found, mut failed) = ([0usize; ALL.len()], false);
            let search = Search::behind_us();
            for ((_, name), found) in ALL.iter().zip(&mut found) {
                *found = next(&search, name);
                failed |= *found == 0 && search.may_exist(name);
            }
            // Mostly there is none. A program with a malloc of its own, but no realloc: what builds the error text mixes the two.
            if failed && is_interposed() {
                forget_error();
            }
            for ((slot, _), found) in ALL.iter().zip(found) {
                if found != 0 {
                    slot.store(found, Relaxed);
                }
            }
        }
    };
}

/// A name that was not found has left an error behind, which the program's next dlerror would give, and which lies in blocks
/// that were made out of our sight. Asked for twice it is gone, and so are its blocks.
pub fn forget_error() {
    for _ in 0..2 {
        // SAFETY: takes nothing; the text is not used.
        unsafe { dlerror() };
    }
}

const fn name(bytes: &'static str) -> &'static CStr {
    match CStr::from_bytes_with_nul(bytes.as_bytes()) {
        Ok(name) => name,
        Err(_) => c"",
    }
}

functions! {
    MALLOC, "malloc", __libc_malloc;
    CALLOC, "calloc", __libc_calloc;
    REALLOC, "realloc", __libc_realloc;
    MEMALIGN, "memalign", __libc_memalign;
    FREE, "free", __libc_free;
    POSIX_MEMALIGN, "posix_memalign";
    ALIGNED_ALLOC, "aligned_alloc";
    VALLOC, "valloc";
    PVALLOC, "pvalloc";
    MALLOC_USABLE_SIZE, "malloc_usable_size";
    FREE_SIZED, "free_sized";
    FREE_ALIGNED_SIZED, "free_aligned_sized";
    PTHREAD_CREATE, "pthread_create";
    SIGALTSTACK, "sigaltstack";
    DLCLOSE, "dlclose";
    DLOPEN, "dlopen";
    DLMOPEN, "dlmopen";
    UNDERSCORE_EXIT, "_exit";
    ABORT, "abort";
    EXECVE, "execve";
    EXECV, "execv";
    EXECVP, "execvp";
    EXECVPE, "execvpe";
    EXECL, "execl";
    EXECLE, "execle";
    EXECLP, "execlp";
    FEXECVE, "fexecve";
    MAKECONTEXT, "makecontext";
    SIGACTION, "sigaction", __sigaction;
    SIGNAL, "signal", bsd_signal;
    KILL, "kill", kill_by_kernel;
    RAISE, "raise", gsignal;
    SYSCALL, "syscall", syscall_by_kernel;
    PRCTL, "prctl";
    SETUID, "setuid";
    SETEUID, "seteuid";
    SETREUID, "setreuid";
    SETRESUID, "setresuid";
    SBRK, "sbrk", __sbrk;
    BRK, "brk";
    MADVISE, "madvise";
    MMAP, "mmap";
    MUNMAP, "munmap";
    MALLOCX, "mallocx";
    RALLOCX, "rallocx";
    XALLOCX, "xallocx";
    DALLOCX, "dallocx";
    SDALLOCX, "sdallocx";
    STRDUP, "strdup", __strdup;
    STRNDUP, "strndup", __strndup;
    DL_FIND_OBJECT, "_dl_find_object";
    NEW, "_Znwm";
    NEW_NOTHROW, "_ZnwmRKSt9nothrow_t";
    NEW_ARRAY, "_Znam";
    NEW_ARRAY_NOTHROW, "_ZnamRKSt9nothrow_t";
    NEW_ALIGNED, "_ZnwmSt11align_val_t";
    NEW_ALIGNED_NOTHROW, "_ZnwmSt11align_val_tRKSt9nothrow_t";
    NEW_ARRAY_ALIGNED, "_ZnamSt11align_val_t";
    NEW_ARRAY_ALIGNED_NOTHROW, "_ZnamSt11align_val_tRKSt9nothrow_t";
    DELETE, "_ZdlPv";
    DELETE_SIZED, "_ZdlPvm";
    DELETE_NOTHROW, "_ZdlPvRKSt9nothrow_t";
    DELETE_ARRAY, "_ZdaPv";
    DELETE_ARRAY_SIZED, "_ZdaPvm";
    DELETE_ARRAY_NOTHROW, "_ZdaPvRKSt9nothrow_t";
    DELETE_ALIGNED, "_ZdlPvSt11align_val_t";
    DELETE_SIZED_ALIGNED, "_ZdlPvmSt11align_val_t";
    DELETE_ALIGNED_NOTHROW, "_ZdlPvSt11align_val_tRKSt9nothrow_t";
    DELETE_ARRAY_ALIGNED, "_ZdaPvSt11align_val_t";
    DELETE_ARRAY_SIZED_ALIGNED, "_ZdaPvmSt11align_val_t";
    DELETE_ARRAY_ALIGNED_NOTHROW, "_ZdaPvSt11align_val_tRKSt9nothrow_t";
}

/// The C++ operators: the address of each real one, 0 if there is none yet, and its name.
pub fn operators() -> impl Iterator<Item = (usize, &'static CStr)> {
    operator_slots().map(|(slot, name)| (slot.load(Relaxed), *name))
}

fn operator_slots() -> impl Iterator<Item = &'static (&'static AtomicUsize, &'static CStr)> {
    ALL.iter().filter(|(_, name)| name.to_bytes().starts_with(b"_Z"))
}

/// An allocator may have operators of its own, and a strdup, which do not come to our malloc: they are forgotten, and operators of the
/// C++ runtime found instead at their first use, which do. Of strdup we have one ourselves.
pub fn forget_makers_in(file: AddrRange) {
    let makers = operator_slots().map(|(slot, _)| *slot).chain([&STRDUP, &STRNDUP]);
    makers.filter(|slot| file.contains(slot.load(Relaxed))).for_each(|slot| slot.store(0, Relaxed));
}

/// The C++ operator of `slot`, whose library was loaded after us and out of our sight (by a dlopen with RTLD_LOCAL).
pub extern "C" fn late(slot: &'static AtomicUsize) -> usize {
    const NOW_AND_ONLY_IF_LOADED: c_int = 2 | 4;
    // What the lookups allocate must not take the note of the operator that is about to be called.
    let note = crate::tls::current().map(|thread| &thread.operator);
    let kept = note.map(|note| (note.what.get(), note.sp.replace(0), note.fp.get()));
    let found = look_up_late(slot, NOW_AND_ONLY_IF_LOADED);
    if let (Some(note), Some((what, sp, fp))) = (note, kept) {
        note.set(what, sp, fp);
    }
    found
}

fn look_up_late(slot: &'static AtomicUsize, mode: c_int) -> usize {
    let Some((_, name)) = ALL.iter().find(|(other, _)| core::ptr::eq(*other, slot)) else { return 0 };
    for library in [c"libstdc++.so.6", c"libc++.so.1", c"libc++abi.so.1"] {
        // SAFETY: dlopen and dlsym read the names. The handle is kept: the address must stay good.
        let found = unsafe {
            let handle = dlopen(library.as_ptr(), mode);
            if handle.is_null() { 0 } else { dlsym(handle, name.as_ptr()) as usize }
        };
        if found != 0 {
            slot.store(found, Relaxed);
            return found;
        }
    }
    forget_error();
    // A C++ runtime of another name, loaded out of our sight: do what operator new and delete do at their plainest.
    if name.to_bytes().starts_with(b"_Zd") {
        plain_delete as *const () as usize
    } else {
        plain_new as *const () as usize
    }
}

extern "C" fn plain_new(size: usize) -> usize {
    malloc(size.max(17))
}

extern "C" fn plain_delete(ptr: usize) {
    free(ptr);
}

/// Whether the real functions are known: not while they are being looked up.
pub fn resolved() -> bool {
    RESOLVED.load(Acquire) == 2
}

/// Makes sure that the real functions are known.
#[inline(always)]
pub fn ready() {
    if RESOLVED.load(Acquire) != 2 {
        resolve();
    }
}

#[cold]
#[inline(never)]
fn resolve() {
    // A nested call, from inside dlsym, goes on with what is there already.
    if RESOLVED.compare_exchange(0, 1, Acquire, Relaxed).is_ok() {
        resolve_all();
        RESOLVED.store(2, Release);
    }
}

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
    mapped_file(first(c"malloc") as usize).is_some_and(|file| file.contains(symbols::program()))
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
pub fn raise(signal: c_int) -> c_int {
    call!(RAISE, fn(signal: c_int) -> c_int)
}
pub fn kill(process: c_int, signal: c_int) -> c_int {
    call!(KILL, fn(process: c_int, signal: c_int) -> c_int)
}
extern "C" fn kill_by_kernel(process: c_int, signal: c_int) -> c_int {
    // SAFETY: the program gave these arguments.
    by_kernel(unsafe { sys::call(sys::nr::KILL, [process as usize, signal as usize, 0, 0, 0, 0]) }) as c_int
}
/// What an allocator calls while the real functions are being looked up.
extern "C" fn syscall_by_kernel(number: usize, a: usize, b: usize, c: usize, d: usize, e: usize, f: usize) -> usize {
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
    if DL_FIND_OBJECT.load(Relaxed) == 0 {
        return None;
    }
    let out = &raw mut found as usize;
    let missing = call!(DL_FIND_OBJECT, fn(pc: usize, out: usize) -> c_int) != 0;
    (!missing).then_some(found)
}
