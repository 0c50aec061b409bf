//! Where x86-64's registers are in what the kernel gives.
#![allow(unsafe_code)] // reads a signal frame

use super::EndedEarly;
use leakscan_engine::sys;

/// General registers of a thread: `user_regs_struct`.
pub const GENERAL: usize = 27;
/// The number of the vector registers' set (NT_X86_XSTATE).
pub const VECTOR_SET: usize = 0x202;

/// Stack and thread pointer: rsp and fs_base.
pub fn pointers(general: &[usize; GENERAL], _: impl Fn(usize, &mut [usize]) -> Option<usize>) -> (usize, usize) {
    (general[19], general[21])
}

/// Where the result of a system call is written to by PTRACE_POKEUSER, and read by PTRACE_PEEKUSER: rax.
pub const RESULT: usize = RAX * 8;
const R8: usize = 9;
const R10: usize = 7;
const RAX: usize = 10;
const RDX: usize = 12;
const ORIG_RAX: usize = 15;
const RIP: usize = 16;

/// The call that the kernel has ended with EINTR, as it stopped the thread, though it has done nothing of it yet and may begin it anew. (Most
/// calls it begins anew by itself, or goes on with. One that is told how long to wait would wait as long again: who calls it counts the time.)
pub fn ended_early(general: &[usize; GENERAL]) -> Option<EndedEarly> {
    const EINTR: isize = 4;
    if general[RAX] as isize != -EINTR {
        return None;
    }
    let waits_for_good = match general[ORIG_RAX] {
        // semop.
        65 => true,
        // rt_sigtimedwait.
        128 => general[RDX] == 0,
        // epoll_wait, epoll_pwait: milliseconds.
        232 | 281 => (general[R10] as i32) < 0,
        // semtimedop, epoll_pwait2.
        220 | 441 => general[R10] == 0,
        // io_getevents, io_pgetevents.
        208 | 333 => general[R8] == 0,
        _ => false,
    };
    // read, readv, accept, accept4, recvfrom, recvmsg, sendto, sendmsg: of a socket with a timeout, or they would begin anew.
    let has_timeout = matches!(general[ORIG_RAX], 0 | 19 | 43 | 288 | 45 | 47 | 44 | 46);
    (waits_for_good || has_timeout).then_some(EndedEarly { has_timeout, pc: general[RIP] })
}

/// Copies the general registers that a signal has interrupted; gives the stack pointer, and where the vector state lies and how
/// many bytes it has.
///
/// # Safety
/// `context` is the `ucontext` that a signal handler got.
pub unsafe fn interrupted(context: *const usize, general: &mut [usize; GENERAL]) -> (usize, *const u8, usize) {
    // Flags, link, the alternate stack (3 words), then 23 general registers, rsp the 16th; then the pointer to the vector
    // state. That says its own length behind a magic number, at byte 464; without it there are 512 bytes.
    const MAGIC: u32 = 0x4650_5853;
    // The frame has no base of the spare segment, which is still the thread's.
    general[23] = sys::spare_base();
    // SAFETY: by this function's own contract.
    unsafe {
        for (i, place) in general.iter_mut().take(23).enumerate() {
            *place = *context.add(5 + i);
        }
        let vector = *context.add(5 + 23) as *const u8;
        if vector.is_null() {
            return (general[15], vector, 0);
        }
        let (magic, len) = (*vector.add(464).cast::<u32>(), *vector.add(468).cast::<u32>());
        (general[15], vector, if magic == MAGIC { len as usize } else { 512 })
    }
}
