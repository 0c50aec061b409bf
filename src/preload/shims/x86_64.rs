//! The exported names on x86-64: each hands its own stack pointer and rbp on and jumps, so that unwinding starts in the
//! caller with exact registers and none of our frames. The one thread word is here too, since stable Rust has no
//! initial-exec thread-locals.

use crate::tls::{Note, Thread};
use core::arch::{asm, global_asm, naked_asm};
use core::mem::offset_of;
use leakscan_engine::AddrRange;

// The thread word: 8 bytes of initial-exec TLS. An initial-exec read is two instructions; a `thread_local!` in a cdylib
// calls __tls_get_addr, which may allocate.
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
    "mov eax, 8",
    "ret",
    ".size rust_eh_personality, . - rust_eh_personality",
);

/// Reads the thread word.
#[inline(always)]
pub fn thread_word() -> usize {
    let value: usize;
    // SAFETY: reads this thread's own word; fs is the thread pointer whenever code of a dynamic program runs.
    unsafe {
        asm!("mov {v}, qword ptr [rip + leakscan_thread_word@GOTTPOFF]", "mov {v}, qword ptr fs:[{v}]",
            v = out(reg) value, options(nostack, readonly, preserves_flags));
    }
    value
}

/// Writes the thread word.
#[inline(always)]
pub fn set_thread_word(value: usize) {
    // SAFETY: as in `thread_word`.
    unsafe {
        asm!("mov {t}, qword ptr [rip + leakscan_thread_word@GOTTPOFF]", "mov qword ptr fs:[{t}], {v}",
            t = out(reg) _, v = in(reg) value, options(nostack, preserves_flags));
    }
}

/// Gives this thread every right that a protection key may have taken from it (pkey_set).
pub fn open_protection_keys() {
    let (leaf, os_enables_keys) = (core::arch::x86_64::__cpuid_count(7, 0), 1 << 4);
    if leaf.ecx & os_enables_keys != 0 {
        // SAFETY: the instruction is there, as the bit says; it wants ecx and edx to be 0, and eax is the rights taken.
        unsafe { asm!("wrpkru", in("eax") 0, in("ecx") 0, in("edx") 0, options(nostack, preserves_flags)) };
    }
}

/// The thread pointer: on x86-64 the thread control block, at the top of a pthread's stack.
#[inline(always)]
pub fn thread_pointer() -> usize {
    let value: usize;
    // SAFETY: word 0 of the control block holds its own address (the ABI's TLS layout).
    unsafe { asm!("mov {}, fs:[0]", out(reg) value, options(nostack, readonly, preserves_flags)) };
    value
}

/// The thread pointer points to its start, whose header of 704 bytes is the ABI's (`tcbhead_t`).
pub const CONTROL_BLOCK: super::ControlBlock = super::ControlBlock {
    start: 0,
    words: 288,
    selves: &[0, 2],
    dtv: 1,
    id_within: 704..1024,
    stack_within: 704..2280,
};
/// Static thread-local storage lies below the thread pointer.
pub const TLS_BELOW: usize = 8192;
pub const TLS_ABOVE: usize = 0;

/// The static thread-local storage of a thread whose files have `size` bytes of it in all.
pub const fn static_tls(pointer: usize, size: usize) -> AddrRange {
    AddrRange::new(pointer - size, pointer)
}

/// The secret that glibc mixes into the pointers that it keeps in jmp_bufs and in its lists of functions.
pub fn pointer_guard() -> usize {
    let value: usize;
    // SAFETY: word 6 of the control block (`tcbhead_t.pointer_guard`), readable in every thread.
    unsafe { asm!("mov {}, fs:[0x30]", out(reg) value, options(nostack, readonly, preserves_flags)) };
    value
}

/// A word as it was before glibc's PTR_MANGLE.
pub const fn unmangled(word: usize, guard: usize) -> usize {
    word.rotate_right(17) ^ guard
}

/// Where makecontext puts its trampoline's address, and where the trampoline's own call puts another one when the routine has
/// returned (glibc's makecontext.c and __start_context.S). 0: nowhere on the stack.
pub const fn context_ends_at(high: usize, arguments: usize) -> usize {
    let more = arguments.saturating_sub(6);
    let aligned = high.saturating_sub((more + 1) * 8) & !15;
    aligned.saturating_sub(8) + more * 8
}

/// Where `struct pthread`, of so many bytes, begins.
pub const fn pthread_of(pointer: usize, _: usize) -> usize {
    pointer
}

macro_rules! export {
    ($($name:literal => $target:path, $sp:literal, $fp:literal, $jump:literal;)+) => {
        $(const _: () = {
            /// # Safety
            /// As the C function of that name.
            #[unsafe(naked)]
            #[unsafe(export_name = $name)]
            unsafe extern "C" fn entry() {
                naked_asm!(
                    concat!("mov ", $sp, ", rsp"), concat!("mov ", $fp, ", rbp"), $jump,
                    target = sym $target
                )
            }
        };)+
    };
}

use crate::interpose as to;

// name => entered function, the argument registers that take the stack pointer and rbp (those after the real arguments).
export! {
    "realloc" => to::on_realloc, "rdx", "rcx", "jmp {target}";
    "reallocarray" => to::reallocarray, "rcx", "r8", "jmp {target}";
    "free_sized" => to::free_sized, "rdx", "rcx", "jmp {target}";
    "free_aligned_sized" => to::free_aligned_sized, "rcx", "r8", "jmp {target}";
    "mallocx" => to::mallocx, "rdx", "rcx", "jmp {target}";
    "rallocx" => to::rallocx, "rcx", "r8", "jmp {target}";
    "dallocx" => to::dallocx, "rdx", "rcx", "jmp {target}";
    "sdallocx" => to::sdallocx, "rcx", "r8", "jmp {target}";
    "posix_memalign" => to::posix_memalign, "rcx", "r8", "jmp {target}";
    "aligned_alloc" => to::aligned_alloc, "rdx", "rcx", "jmp {target}";
    "memalign" => to::memalign, "rdx", "rcx", "jmp {target}";
    "valloc" => to::valloc, "rsi", "rdx", "jmp {target}";
    "pvalloc" => to::pvalloc, "rsi", "rdx", "jmp {target}";
    // The same, by the function's address; malloc's family is 0.
    "malloc" => crate::fast::MALLOC, "rsi", "rdx", "xor ecx, ecx; jmp qword ptr [rip + {target}]";
    "calloc" => crate::fast::CALLOC, "rdx", "rcx", "jmp qword ptr [rip + {target}]";
    "free" => crate::fast::FREE, "rsi", "rdx", "jmp qword ptr [rip + {target}]";
    "cfree" => crate::fast::FREE, "rsi", "rdx", "jmp qword ptr [rip + {target}]";
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
                    "mov rax, qword ptr [rip + {real}]", "test rax, rax", "jz 2f", "jmp rax",
                    "2:", concat!("mov ", $sp, ", rsp"), concat!("mov ", $fp, ", rbp"), "jmp {ours}",
                    real = sym crate::real::$real,
                    ours = sym $ours
                )
            }
        };)+
    };
}

export_copy! {
    "strdup", STRDUP, "rsi", "rdx" => to::strdup;
    "strndup", STRNDUP, "rdx", "rcx" => to::strndup;
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
                    concat!("push ", $len), ".cfi_adjust_cfa_offset 8",
                    "call {function}",
                    "mov rdi, rax",
                    "pop rsi", ".cfi_adjust_cfa_offset -8",
                    "mov rdx, qword ptr [rsp]",
                    "jmp {note}",
                    ".cfi_endproc",
                    function = sym $function,
                    note = sym $note
                )
            }
        };)+
    };
}

export_growth! {
    "mmap" => crate::regions::mmap, "rsi", crate::regions::mapped;
    "mmap64" => crate::regions::mmap, "rsi", crate::regions::mapped;
    "sbrk" => crate::regions::sbrk, "rdi", crate::regions::grown;
    "brk" => crate::regions::brk, "rdi", crate::regions::moved;
}

/// dlopen and dlmopen: look at the mode, and jump to the real one, which depends on its caller's address.
macro_rules! export_open {
    ($($name:literal, $real:ident, $mode:literal, $always:literal => $look:path;)+) => {
        $(const _: () = {
            /// # Safety
            /// As the C function of that name.
            #[unsafe(naked)]
            #[unsafe(export_name = $name)]
            unsafe extern "C" fn entry() {
                naked_asm!(
                    ".cfi_startproc",
                    concat!("mov eax, ", $mode), concat!("or eax, ", $always), "test eax, 8", "jnz 2f",
                    "mov rax, qword ptr [rip + {real}]", "test rax, rax", "jz 2f", "jmp rax",
                    "2: push rdi", ".cfi_adjust_cfa_offset 8",
                    "push rsi", ".cfi_adjust_cfa_offset 8",
                    "push rdx", ".cfi_adjust_cfa_offset 8",
                    concat!("mov esi, ", $mode), "call {look}",
                    "pop rdx", ".cfi_adjust_cfa_offset -8",
                    "pop rsi", ".cfi_adjust_cfa_offset -8",
                    "pop rdi", ".cfi_adjust_cfa_offset -8",
                    concat!("mov ", $mode, ", eax"),
                    "jmp qword ptr [rip + {real}]",
                    ".cfi_endproc",
                    look = sym $look,
                    real = sym crate::real::$real
                )
            }
        };)+
    };
}

export_open! {
    "dlopen", DLOPEN, "esi", "0" => crate::deepbind::opening;
    "dlmopen", DLMOPEN, "edx", "8" => crate::deepbind::opening_apart;
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
                    "push rdi", ".cfi_adjust_cfa_offset 8", "push rsi", ".cfi_adjust_cfa_offset 8",
                    "push rdx", ".cfi_adjust_cfa_offset 8", "push rcx", ".cfi_adjust_cfa_offset 8",
                    "push r8", ".cfi_adjust_cfa_offset 8", "push r9", ".cfi_adjust_cfa_offset 8",
                    "push rax", ".cfi_adjust_cfa_offset 8",
                    "call {before}",
                    "pop rax", ".cfi_adjust_cfa_offset -8",
                    "pop r9", ".cfi_adjust_cfa_offset -8", "pop r8", ".cfi_adjust_cfa_offset -8",
                    "pop rcx", ".cfi_adjust_cfa_offset -8", "pop rdx", ".cfi_adjust_cfa_offset -8",
                    "pop rsi", ".cfi_adjust_cfa_offset -8", "pop rdi", ".cfi_adjust_cfa_offset -8",
                    "jmp qword ptr [rip + {real}]",
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
                    "mov rax, qword ptr [rip + {real}]", "test rax, rax", "jz 2f", "jmp rax",
                    "2: jmp {ours}",
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
        "cmp edi, 231", "je 2f", "cmp edi, 59", "je 2f", "cmp edi, 322", "je 2f", "cmp edi, 323", "je 2f",
        "cmp edi, 157", "je 2f", "cmp edi, 317", "je 2f", "cmp edi, 28", "je 2f", "cmp edi, 161", "je 2f"
    ] => crate::fatal::syscall;
    // PR_SET_SECCOMP.
    "prctl", PRCTL, ["cmp edi, 22", "je 2f"] => crate::sandbox::prctl;
}

/// Operators can do without the C++ runtime's.
pub const CAN_BE_DIRECT: bool = true;

/// operator new and delete. Where the real ones are the C++ runtime's (`fast::DIRECT`), those of no alignment do what these do: malloc,
/// free. If there is no memory, or the real ones are others: notes from where it was called, and jumps to the real one, which calls
/// malloc, aligned_alloc or free, where the note is used. No frame of ours stands in between, so exceptions, new_handler and a
/// program's own operator new are as without us. rax is free at a function's entry for non-variadic functions.
macro_rules! export_operators {
    ($($name:literal, $real:ident, $family:literal, [$($direct:expr),*];)+) => {
        $(const _: () = {
            /// # Safety
            /// As the C++ operator of that name.
            #[unsafe(naked)]
            #[unsafe(export_name = $name)]
            unsafe extern "C" fn entry() {
                naked_asm!(
                    ".cfi_startproc",
                    $($direct,)*
                    "6: mov r10, qword ptr [rip + leakscan_thread_word@GOTTPOFF]", "mov r10, qword ptr fs:[r10]",
                    // 0: the thread's first call; 1: its end.
                    "cmp r10, 2", "jb 4f",
                    // The array and nothrow forms call the plain ones: the outer call, near above, is the program's.
                    "mov rax, qword ptr [r10 + {sp}]", "sub rax, rsp", "cmp rax, 256", "jae 2f",
                    "mov eax, dword ptr [r10 + {what}]", concat!("xor eax, ", $family), "test al, 8", "jz 3f",
                    "2:", "mov qword ptr [r10 + {fp}], rbp",
                    concat!("mov dword ptr [r10 + {what}], ", $family), "mov dword ptr [r10 + {size}], edi",
                    "mov qword ptr [r10 + {sp}], rsp",
                    "3:", "mov rax, qword ptr [rip + {real}]", "test rax, rax", "jz 5f", "jmp rax",
                    "4:", "mov r10, rsp", "mov r11, rbp", concat!("mov eax, ", $family), "call {note}", "jmp 3b",
                    "5:", "lea rax, [rip + {real}]", "call {late}", "jmp rax",
                    ".cfi_endproc",
                    // Not all have a direct way, but each operand must be named.
                    "/* {direct} {malloc} {delete} */",
                    sp = const offset_of!(Thread, operator) + offset_of!(Note, sp),
                    fp = const offset_of!(Thread, operator) + offset_of!(Note, fp),
                    what = const offset_of!(Thread, operator) + offset_of!(Note, what),
                    size = const offset_of!(Thread, operator) + offset_of!(Note, size),
                    note = sym note_operator,
                    late = sym late_operator,
                    real = sym crate::real::$real,
                    direct = sym crate::fast::DIRECT,
                    malloc = sym crate::fast::MALLOC,
                    delete = sym crate::fast::DELETE,
                )
            }
        };)+
    };
}

/// Operator new of no bytes is one of 1.
macro_rules! export_new {
    ($($name:literal, $real:ident, $family:literal;)+) => {
        export_operators! {
            $($name, $real, $family, [
                "cmp byte ptr [rip + {direct}], 0", "je 6f",
                "mov rax, rsp",
                "push rsi", ".cfi_adjust_cfa_offset 8", "push rdi", ".cfi_adjust_cfa_offset 8",
                "sub rsp, 8", ".cfi_adjust_cfa_offset 8",
                "cmp rdi, 1", "adc rdi, 0",
                "mov rsi, rax", "mov rdx, rbp", concat!("mov ecx, ", $family),
                "call qword ptr [rip + {malloc}]",
                "test rax, rax", "jz 7f",
                "add rsp, 24", ".cfi_adjust_cfa_offset -24", "ret",
                ".cfi_adjust_cfa_offset 24",
                "7: add rsp, 8", ".cfi_adjust_cfa_offset -8",
                "pop rdi", ".cfi_adjust_cfa_offset -8", "pop rsi", ".cfi_adjust_cfa_offset -8"
            ];)+
        }
    };
}
macro_rules! export_delete {
    ($($name:literal, $real:ident, $what:literal, $family:literal;)+) => {
        export_operators! {
            $($name, $real, $what, [
                "cmp byte ptr [rip + {direct}], 0", "je 6f",
                "mov rsi, rsp", "mov rdx, rbp", concat!("mov ecx, ", $family), "jmp qword ptr [rip + {delete}]"
            ];)+
        }
    };
}

export_new! {
    "_Znwm", NEW, "1";
    "_ZnwmRKSt9nothrow_t", NEW_NOTHROW, "1";
    "_Znam", NEW_ARRAY, "2";
    "_ZnamRKSt9nothrow_t", NEW_ARRAY_NOTHROW, "2";
}
export_operators! {
    "_ZnwmSt11align_val_t", NEW_ALIGNED, "3", [];
    "_ZnwmSt11align_val_tRKSt9nothrow_t", NEW_ALIGNED_NOTHROW, "3", [];
    "_ZnamSt11align_val_t", NEW_ARRAY_ALIGNED, "3", [];
    "_ZnamSt11align_val_tRKSt9nothrow_t", NEW_ARRAY_ALIGNED_NOTHROW, "3", [];
}
export_delete! {
    "_ZdlPv", DELETE, "9", "1";
    "_ZdlPvm", DELETE_SIZED, "9", "1";
    "_ZdlPvRKSt9nothrow_t", DELETE_NOTHROW, "9", "1";
    "_ZdaPv", DELETE_ARRAY, "10", "2";
    "_ZdaPvm", DELETE_ARRAY_SIZED, "10", "2";
    "_ZdaPvRKSt9nothrow_t", DELETE_ARRAY_NOTHROW, "10", "2";
    "_ZdlPvSt11align_val_t", DELETE_ALIGNED, "11", "3";
    "_ZdlPvmSt11align_val_t", DELETE_SIZED_ALIGNED, "11", "3";
    "_ZdlPvSt11align_val_tRKSt9nothrow_t", DELETE_ALIGNED_NOTHROW, "11", "3";
    "_ZdaPvSt11align_val_t", DELETE_ARRAY_ALIGNED, "11", "3";
    "_ZdaPvmSt11align_val_t", DELETE_ARRAY_SIZED_ALIGNED, "11", "3";
    "_ZdaPvSt11align_val_tRKSt9nothrow_t", DELETE_ARRAY_ALIGNED_NOTHROW, "11", "3";
}

/// Keeps the three argument registers, and calls `to::note_operator(family, sp, rbp)`.
#[unsafe(naked)]
unsafe extern "C" fn note_operator() {
    naked_asm!(
        "push rdi", "push rsi", "push rdx", "sub rsp, 8",
        // Alignment: the operator's entry has sp = 8 mod 16, the call to here makes it 0, three pushes and 8 keep it 0.
        "mov edi, eax", "mov rsi, r10", "mov rdx, r11", "call {note}",
        "add rsp, 8", "pop rdx", "pop rsi", "pop rdi", "ret",
        note = sym to::note_operator
    )
}

/// Keeps the three argument registers, and calls `real::late(rax)`, whose result stays in rax.
#[unsafe(naked)]
unsafe extern "C" fn late_operator() {
    naked_asm!(
        "push rdi", "push rsi", "push rdx", "sub rsp, 8",
        "mov rdi, rax", "call {late}",
        "add rsp, 8", "pop rdx", "pop rsi", "pop rdi", "ret",
        late = sym crate::real::late
    )
}

/// Calls `function(argument, registers)` on another stack, where `registers` points to the seven words rbx, rbp, r12 to r15 and the stack
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
        "mov rax, rbp",
        "push rbp",
        ".cfi_adjust_cfa_offset 8",
        ".cfi_rel_offset rbp, 0",
        "mov rbp, rsp",
        ".cfi_def_cfa_register rbp",
        "mov rsp, rdx",
        "lea rcx, [rbp + 16]",
        "sub rsp, 8",
        "push rcx",
        "push r15",
        "push r14",
        "push r13",
        "push r12",
        "push rax",
        "push rbx",
        "mov rax, rsi",
        "mov rsi, rsp",
        "call rax",
        "mov rsp, rbp",
        ".cfi_def_cfa_register rsp",
        "pop rbp",
        ".cfi_adjust_cfa_offset -8",
        ".cfi_restore rbp",
        "ret",
        ".cfi_endproc",
    )
}
/// Words that [`with_registers`] hands over; the last is the stack pointer.
pub const KEPT_REGISTERS: usize = 7;

/// Starts `entry(argument)` as a process, on a stack of its own. Gives its pid.
///
/// # Safety
/// `stack_top` is the end of mapped memory that nothing else uses until the process has ended; with CLONE_VM `entry` uses no
/// thread-local state.
pub unsafe fn clone_onto(flags: usize, stack_top: usize, entry: extern "C" fn(usize) -> !, argument: usize) -> isize {
    let result;
    // SAFETY: the child starts with the given stack, loses every register but those moved here, and enters `entry` with an
    // aligned stack; the parent goes on behind the call.
    unsafe {
        asm!(
            "syscall", "test rax, rax", "jnz 2f",
            "xor ebp, ebp", "mov rdi, r12", "and rsp, -16", "call r13", "ud2",
            "2:",
            inlateout("rax") leakscan_engine::sys::nr::CLONE as isize => result,
            in("rdi") flags, in("rsi") stack_top, in("rdx") 0, in("r10") 0, in("r8") 0,
            in("r12") argument, in("r13") entry,
            lateout("rcx") _, lateout("r11") _,
        );
    }
    result
}
