//! The real functions: the next ones in the search order after ours.
//!
//! Resolved all at once by the first call that needs one, whichever that is; there is no initialisation to miss. While they
//! are being resolved, dlsym itself may allocate: that is served by glibc's own `__libc_*`.
#![allow(unsafe_code)] // calls foreign functions by address

mod calls;
mod file;
mod whose;

pub use calls::*;
use calls::{kill_by_kernel, syscall_by_kernel};
pub use file::{find_object, mapped_file, path_of};
pub use whose::*;

use crate::stop::signal::Action;
use crate::symbols::{Search, Symbol};
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
    CHROOT, "chroot";
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
