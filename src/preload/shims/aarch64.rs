//! The exported names on aarch64: each makes a frame, so that the return address lies on the stack as it does on x86-64, and
//! hands its address and x29 on. Run under emulation
//! only (qemu-user, which has no clone for a snapshot): allocations and their stacks.

use core::arch::{asm, global_asm, naked_asm};
use leakscan_engine::AddrRange;

// The thread word: 8 bytes of initial-exec TLS. A `thread_local!` in a cdylib may allocate.
global_asm!(
    ".section .tbss.leakscan_thread,\"awT\",@nobits",
    ".p2align 3",
    ".type leakscan_thread_word,@object",
    ".hidden leakscan_thread_word",
    ".globl leakscan_thread_word",
    "leakscan_thread_word:",
    ".zero 8",
    ".size leakscan_thread_word, 8",
    ".text",
);

// core's own objects name a personality although we abort on panic. Ours continues unwinding past them, and is hidden: a
// program that shares Rust's standard library has its own.
global_asm!(
    ".globl rust_eh_personality",
    ".hidden rust_eh_personality",
    ".type rust_eh_personality,@function",
    "rust_eh_personality:",
    "mov w0, #8",
    "ret",
    ".size rust_eh_personality, . - rust_eh_personality",
);

/// Where this thread's word is.
#[inline(always)]
fn thread_word_address() -> usize {
    let value: usize;
    // SAFETY: reads the word's place from the global offset table.
    unsafe {
        asm!("adrp {v}, :gottprel:leakscan_thread_word", "ldr {v}, [{v}, :gottprel_lo12:leakscan_thread_word]",
            v = out(reg) value, options(nostack, readonly, preserves_flags));
    }
    thread_pointer() + value
}

/// Reads the thread word.
#[inline(always)]
pub fn thread_word() -> usize {
    // SAFETY: this thread's own word.
    unsafe { *(thread_word_address() as *const usize) }
}

/// Writes the thread word.
#[inline(always)]
pub fn set_thread_word(value: usize) {
    // SAFETY: as in `thread_word`.
    unsafe { *(thread_word_address() as *mut usize) = value }
}

/// Protection keys: not on this CPU, as far as Debian's kernel goes.
pub fn open_protection_keys() {}

/// The thread pointer: on aarch64 the two words between the control block, below, and thread-local storage, above.
#[inline(always)]
pub fn thread_pointer() -> usize {
    let value: usize;
    // SAFETY: the register may be read by any code.
    unsafe { asm!("mrs {}, tpidr_el0", out(reg) value, options(nostack, nomem, preserves_flags)) };
    value
}

/// The control block ends at the thread pointer, whose first word is the table of thread-local storage.
pub const CONTROL_BLOCK: super::ControlBlock =
    super::ControlBlock { start: -2304, words: 290, selves: &[], dtv: 288, id_within: 0..2304, stack_within: 0..2280 };
/// Static thread-local storage lies above the thread pointer.
pub const TLS_BELOW: usize = 0;
pub const TLS_ABOVE: usize = 8192;

/// The static thread-local storage of a thread whose files have `size` bytes of it in all, behind two words of the ABI's.
pub const fn static_tls(pointer: usize, size: usize) -> AddrRange {
    AddrRange::new(pointer, pointer + 16 + size)
}

/// glibc's secret for pointers is in ld.so here, out of our reach.
pub const fn pointer_guard() -> usize {
    0
}

/// Mangled pointers cannot be told.
pub const fn unmangled(word: usize, _: usize) -> usize {
    word
}

/// The trampoline's address is in a register.
pub const fn context_ends_at(_: usize, _: usize) -> usize {
    0
}

/// Where `struct pthread`, of so many bytes, begins.
pub const fn pthread_of(pointer: usize, size: usize) -> usize {
    pointer.wrapping_sub(size)
}

macro_rules! export {
    ($($name:literal => $target:path, $sp:literal, $fp:literal, $call:literal;)+) => {
        $(const _: () = {
            /// # Safety
            /// As the C function of that name.
            #[unsafe(naked)]
            #[unsafe(export_name = $name)]
            unsafe extern "C" fn entry() {
                naked_asm!(
                    ".cfi_startproc",
                    concat!("mov ", $fp, ", x29"),
                    "stp x29, x30, [sp, #-16]!",
                    ".cfi_def_cfa_offset 16", ".cfi_offset 29, -16", ".cfi_offset 30, -8",
                    "mov x29, sp",
                    concat!("add ", $sp, ", sp, #8"),
                    $call,
                    "ldp x29, x30, [sp], #16",
                    ".cfi_def_cfa_offset 0", ".cfi_restore 29", ".cfi_restore 30",
                    "ret",
                    ".cfi_endproc",
                    target = sym $target
                )
            }
        };)+
    };
}

use crate::interpose as to;

// name => entered function, the argument registers that take the return address's place and x29 (those after the real
// arguments).
export! {
    "realloc" => to::on_realloc, "x2", "x3", "bl {target}";
    "reallocarray" => to::reallocarray, "x3", "x4", "bl {target}";
    "free_sized" => to::free_sized, "x2", "x3", "bl {target}";
    "free_aligned_sized" => to::free_aligned_sized, "x3", "x4", "bl {target}";
    "mallocx" => to::mallocx, "x2", "x3", "bl {target}";
    "rallocx" => to::rallocx, "x3", "x4", "bl {target}";
    "dallocx" => to::dallocx, "x2", "x3", "bl {target}";
    "sdallocx" => to::sdallocx, "x3", "x4", "bl {target}";
    "posix_memalign" => to::posix_memalign, "x3", "x4", "bl {target}";
    "aligned_alloc" => to::aligned_alloc, "x2", "x3", "bl {target}";
    "memalign" => to::memalign, "x2", "x3", "bl {target}";
    "valloc" => to::valloc, "x1", "x2", "bl {target}";
    "pvalloc" => to::pvalloc, "x1", "x2", "bl {target}";
    // The same, by the function's address; malloc's family is 0.
    "malloc" => crate::fast::MALLOC, "x1", "x2", "mov w3, #0; adrp x9, {target}; ldr x9, [x9, :lo12:{target}]; blr x9";
    "calloc" => crate::fast::CALLOC, "x2", "x3", "adrp x9, {target}; ldr x9, [x9, :lo12:{target}]; blr x9";
    "free" => crate::fast::FREE, "x1", "x2", "mov w3, #0; adrp x9, {target}; ldr x9, [x9, :lo12:{target}]; blr x9";
    "cfree" => crate::fast::FREE, "x1", "x2", "mov w3, #0; adrp x9, {target}; ldr x9, [x9, :lo12:{target}]; blr x9";
}

/// strdup: libc's, which calls malloc, or ours where an allocator has one that does not.
macro_rules! export_copy {
    ($($name:literal, $real:ident, $sp:literal, $fp:literal => $ours:path;)+) => {
        $(const _: () = {
            /// # Safety
            /// As the C function of that name.
            #[unsafe(naked)]
            #[unsafe(export_name = $name)]
            unsafe extern "C" fn entry() {
                naked_asm!(
                    ".cfi_startproc",
                    "adrp x9, {real}", "ldr x9, [x9, :lo12:{real}]", "cbz x9, 2f", "br x9",
                    "2:", concat!("mov ", $fp, ", x29"),
                    "stp x29, x30, [sp, #-16]!",
                    ".cfi_def_cfa_offset 16", ".cfi_offset 29, -16", ".cfi_offset 30, -8",
                    "mov x29, sp",
                    concat!("add ", $sp, ", sp, #8"),
                    "bl {ours}",
                    "ldp x29, x30, [sp], #16",
                    ".cfi_def_cfa_offset 0", ".cfi_restore 29", ".cfi_restore 30",
                    "ret",
                    ".cfi_endproc",
                    real = sym crate::real::$real,
                    ours = sym $ours
                )
            }
        };)+
    };
}

export_copy! {
    "strdup", STRDUP, "x1", "x2" => to::strdup;
    "strndup", STRNDUP, "x2", "x3" => to::strndup;
}

/// mmap, sbrk and brk: as they are, then a note of what they gave, how long it is, and who asked.
macro_rules! export_growth {
    ($($name:literal => $function:path, $len:literal, $note:path;)+) => {
        $(const _: () = {
            /// # Safety
            /// As the C function of that name.
            #[unsafe(naked)]
            #[unsafe(export_name = $name)]
            unsafe extern "C" fn entry() {
                naked_asm!(
                    ".cfi_startproc",
                    "stp x29, x30, [sp, #-32]!",
                    ".cfi_def_cfa_offset 32", ".cfi_offset 29, -32", ".cfi_offset 30, -24",
                    "mov x29, sp",
                    concat!("str ", $len, ", [sp, #16]"),
                    "bl {function}",
                    "ldr x1, [sp, #16]",
                    "ldp x29, x30, [sp], #32",
                    ".cfi_def_cfa_offset 0", ".cfi_restore 29", ".cfi_restore 30",
                    "mov x2, x30",
                    "b {note}",
                    ".cfi_endproc",
                    function = sym $function,
                    note = sym $note
                )
            }
        };)+
    };
}

export_growth! {
    "mmap" => crate::regions::mmap, "x1", crate::regions::mapped;
    "mmap64" => crate::regions::mmap, "x1", crate::regions::mapped;
    "sbrk" => crate::regions::sbrk, "x0", crate::regions::grown;
    "brk" => crate::regions::brk, "x0", crate::regions::moved;
}

/// dlopen and dlmopen: look at the mode, and jump to the real one, which depends on its caller's address.
macro_rules! export_open {
    ($($name:literal, $real:ident, $mode:literal => $look:path;)+) => {
        $(const _: () = {
            /// # Safety
            /// As the C function of that name.
            #[unsafe(naked)]
            #[unsafe(export_name = $name)]
            unsafe extern "C" fn entry() {
                naked_asm!(
                    ".cfi_startproc",
                    "stp x29, x30, [sp, #-48]!",
                    ".cfi_def_cfa_offset 48", ".cfi_offset 29, -48", ".cfi_offset 30, -40",
                    "mov x29, sp",
                    "stp x0, x1, [sp, #16]",
                    "str x2, [sp, #32]",
                    concat!("mov w1, ", $mode),
                    "bl {look}",
                    "mov w9, w0",
                    "ldp x0, x1, [sp, #16]",
                    "ldr x2, [sp, #32]",
                    concat!("mov ", $mode, ", w9"),
                    "ldp x29, x30, [sp], #48",
                    ".cfi_def_cfa_offset 0", ".cfi_restore 29", ".cfi_restore 30",
                    "adrp x9, {real}",
                    "ldr x9, [x9, :lo12:{real}]",
                    "br x9",
                    ".cfi_endproc",
                    look = sym $look,
                    real = sym crate::real::$real
                )
            }
        };)+
    };
}

export_open! {
    "dlopen", DLOPEN, "w1" => crate::deepbind::opening;
    "dlmopen", DLMOPEN, "w2" => crate::deepbind::opening_apart;
}

/// What takes any number of arguments: a look ahead (unless the instructions in brackets go straight on), and a jump to the real one.
macro_rules! export_ahead {
    ($($name:literal, $real:ident, [$($quick:literal),*] => $before:path;)+) => {
        $(const _: () = {
            /// # Safety
            /// As the C function of that name.
            #[unsafe(naked)]
            #[unsafe(export_name = $name)]
            unsafe extern "C" fn entry() {
                naked_asm!(
                    ".cfi_startproc",
                    $($quick,)*
                    "stp x29, x30, [sp, #-80]!",
                    ".cfi_def_cfa_offset 80", ".cfi_offset 29, -80", ".cfi_offset 30, -72",
                    "mov x29, sp",
                    "stp x0, x1, [sp, #16]", "stp x2, x3, [sp, #32]", "stp x4, x5, [sp, #48]", "stp x6, x7, [sp, #64]",
                    "bl {before}",
                    "ldp x0, x1, [sp, #16]", "ldp x2, x3, [sp, #32]", "ldp x4, x5, [sp, #48]", "ldp x6, x7, [sp, #64]",
                    "ldp x29, x30, [sp], #80",
                    ".cfi_def_cfa_offset 0", ".cfi_restore 29", ".cfi_restore 30",
                    "adrp x9, {real}",
                    "ldr x9, [x9, :lo12:{real}]",
                    "br x9",
                    ".cfi_endproc",
                    before = sym $before,
                    real = sym crate::real::$real
                )
            }
        };)+
    };
}

export_ahead! {
    "execve", EXECVE, [] => crate::trigger::before_exec_of;
    "execv", EXECV, [] => crate::trigger::before_exec_of;
    "execvp", EXECVP, [] => crate::trigger::before_exec;
    "execvpe", EXECVPE, [] => crate::trigger::before_exec;
    "execl", EXECL, [] => crate::trigger::before_exec_of;
    "execle", EXECLE, [] => crate::trigger::before_exec_of;
    "execlp", EXECLP, [] => crate::trigger::before_exec;
    "fexecve", FEXECVE, [] => crate::trigger::before_exec;
    "makecontext", MAKECONTEXT, [] => crate::contexts::making;
    // All calls but exit_group, execve, execveat and userfaultfd go straight on.
}

/// What goes straight on to the real one, unless it is known to matter (a jump to 2 in the brackets), or the real one is not known yet.
macro_rules! export_unless {
    ($($name:literal, $real:ident, [$($test:literal),*] => $ours:path;)+) => {
        $(const _: () = {
            /// # Safety
            /// As the C function of that name.
            #[unsafe(naked)]
            #[unsafe(export_name = $name)]
            unsafe extern "C" fn entry() {
                naked_asm!(
                    $($test,)*
                    "adrp x9, {real}", "ldr x9, [x9, :lo12:{real}]", "cbz x9, 2f", "br x9",
                    "2: b {ours}",
                    real = sym crate::real::$real,
                    ours = sym $ours
                )
            }
        };)+
    };
}

export_unless! {
    // exit_group, execve, execveat, userfaultfd, prctl, seccomp, madvise, chroot.
    "syscall", SYSCALL, [
        "cmp w0, #94", "b.eq 2f", "cmp w0, #221", "b.eq 2f", "cmp w0, #281", "b.eq 2f", "cmp w0, #282", "b.eq 2f",
        "cmp w0, #167", "b.eq 2f", "cmp w0, #277", "b.eq 2f", "cmp w0, #233", "b.eq 2f", "cmp w0, #51", "b.eq 2f"
    ] => crate::fatal::syscall;
    // PR_SET_SECCOMP.
    "prctl", PRCTL, ["cmp w0, #22", "b.eq 2f"] => crate::sandbox::prctl;
}

/// Operators go by the C++ runtime's.
pub const CAN_BE_DIRECT: bool = false;

/// operator new: notes from where it was called, and calls the real one, which calls malloc or aligned_alloc, where the note
/// is used. An exception passes by the frame's unwind table.
macro_rules! export_new {
    ($($name:literal, $real:ident, $family:literal;)+) => {
        $(const _: () = {
            /// # Safety
            /// As the C++ operator of that name.
            #[unsafe(naked)]
            #[unsafe(export_name = $name)]
            unsafe extern "C" fn entry() {
                naked_asm!(
                    ".cfi_startproc",
                    "stp x29, x30, [sp, #-48]!",
                    ".cfi_def_cfa_offset 48", ".cfi_offset 29, -48", ".cfi_offset 30, -40",
                    "stp x0, x1, [sp, #16]",
                    "str x2, [sp, #32]",
                    concat!("mov w0, #", $family),
                    "add x1, sp, #8",
                    "mov x2, x29",
                    "mov x29, sp",
                    "bl {note}",
                    "adrp x9, {real}",
                    "ldr x9, [x9, :lo12:{real}]",
                    "cbnz x9, 2f",
                    "adrp x0, {real}",
                    "add x0, x0, :lo12:{real}",
                    "bl {late}",
                    "mov x9, x0",
                    "2: ldp x0, x1, [sp, #16]",
                    "ldr x2, [sp, #32]",
                    "blr x9",
                    "ldp x29, x30, [sp], #48",
                    ".cfi_def_cfa_offset 0", ".cfi_restore 29", ".cfi_restore 30",
                    "ret",
                    ".cfi_endproc",
                    note = sym to::note_operator,
                    late = sym crate::real::late,
                    real = sym crate::real::$real
                )
            }
        };)+
    };
}

export_new! {
    "_Znwm", NEW, "1";
    "_ZnwmRKSt9nothrow_t", NEW_NOTHROW, "1";
    "_Znam", NEW_ARRAY, "2";
    "_ZnamRKSt9nothrow_t", NEW_ARRAY_NOTHROW, "2";
    "_ZnwmSt11align_val_t", NEW_ALIGNED, "3";
    "_ZnwmSt11align_val_tRKSt9nothrow_t", NEW_ALIGNED_NOTHROW, "3";
    "_ZnamSt11align_val_t", NEW_ARRAY_ALIGNED, "3";
    "_ZnamSt11align_val_tRKSt9nothrow_t", NEW_ARRAY_ALIGNED_NOTHROW, "3";
    "_ZdlPv", DELETE, "9";
    "_ZdlPvm", DELETE_SIZED, "9";
    "_ZdlPvRKSt9nothrow_t", DELETE_NOTHROW, "9";
    "_ZdaPv", DELETE_ARRAY, "10";
    "_ZdaPvm", DELETE_ARRAY_SIZED, "10";
    "_ZdaPvRKSt9nothrow_t", DELETE_ARRAY_NOTHROW, "10";
    "_ZdlPvSt11align_val_t", DELETE_ALIGNED, "11";
    "_ZdlPvmSt11align_val_t", DELETE_SIZED_ALIGNED, "11";
    "_ZdlPvSt11align_val_tRKSt9nothrow_t", DELETE_ALIGNED_NOTHROW, "11";
    "_ZdaPvSt11align_val_t", DELETE_ARRAY_ALIGNED, "11";
    "_ZdaPvmSt11align_val_t", DELETE_ARRAY_SIZED_ALIGNED, "11";
    "_ZdaPvSt11align_val_tRKSt9nothrow_t", DELETE_ARRAY_ALIGNED_NOTHROW, "11";
}

/// Calls `function(argument, registers)` on another stack, where `registers` points to the twelve words x19 to x28, x29 and the stack
/// pointer as they are at this call: what a conservative scan of the calling thread must see.
///
/// # Safety
/// As for `function`. `stack_top` is the end of mapped memory that nothing else uses meanwhile, and a multiple of 16; no signal comes.
#[unsafe(naked)]
pub unsafe extern "C" fn with_registers(
    argument: usize,
    function: unsafe extern "C" fn(usize, *const usize),
    stack_top: usize,
) {
    naked_asm!(
        ".cfi_startproc",
        "mov x9, x1",
        "mov x10, sp",
        "mov x11, x29",
        "stp x29, x30, [sp, #-16]!",
        ".cfi_def_cfa_offset 16",
        ".cfi_offset 29, -16",
        ".cfi_offset 30, -8",
        "mov x29, sp",
        ".cfi_def_cfa_register 29",
        "mov sp, x2",
        "sub sp, sp, #96",
        "stp x19, x20, [sp]",
        "stp x21, x22, [sp, #16]",
        "stp x23, x24, [sp, #32]",
        "stp x25, x26, [sp, #48]",
        "stp x27, x28, [sp, #64]",
        "stp x11, x10, [sp, #80]",
        "mov x1, sp",
        "blr x9",
        "mov sp, x29",
        ".cfi_def_cfa_register 31",
        "ldp x29, x30, [sp], #16",
        ".cfi_def_cfa_offset 0",
        ".cfi_restore 29",
        ".cfi_restore 30",
        "ret",
        ".cfi_endproc",
    )
}
/// Words that [`with_registers`] hands over; the last is the stack pointer.
pub const KEPT_REGISTERS: usize = 12;

/// Starts `entry(argument)` as a process, on a stack of its own. Gives its pid.
///
/// # Safety
/// `stack_top` is the end of mapped memory that nothing else uses until the process has ended; with CLONE_VM `entry` uses no
/// thread-local state.
pub unsafe fn clone_onto(flags: usize, stack_top: usize, entry: extern "C" fn(usize) -> !, argument: usize) -> isize {
    let result;
    // SAFETY: the child starts with the given stack and the parent's registers, and enters `entry` with an aligned stack; the
    // parent goes on behind the call.
    unsafe {
        asm!(
            "svc #0", "cbnz x0, 2f",
            "mov x29, xzr", "mov x0, x10", "blr x11", "brk #1",
            "2:",
            in("x8") leakscan_engine::sys::nr::CLONE,
            inlateout("x0") flags as isize => result, in("x1") stack_top & !15,
            in("x2") 0, in("x3") 0, in("x4") 0,
            in("x10") argument, in("x11") entry,
        );
    }
    result
}
