//! Where aarch64's registers are in what the kernel gives.
#![allow(unsafe_code)] // reads a signal frame

use super::EndedEarly;

/// General registers of a thread: x0 to x30, sp, pc, pstate.
pub const GENERAL: usize = 34;
/// The number of the vector registers' set (NT_PRFPREG).
pub const VECTOR_SET: usize = 2;
const TLS_SET: usize = 0x401;

/// Stack and thread pointer: sp and tpidr_el0, which has a set of its own.
pub fn pointers(general: &[usize; GENERAL], read: impl Fn(usize, &mut [usize]) -> Option<usize>) -> (usize, usize) {
    let mut tls = [0];
    read(TLS_SET, &mut tls);
    (general[31], tls[0])
}

/// The kernel has decided before it stops a thread here: nothing can be done about a call that it ends.
pub const RESULT: usize = 0;
pub const fn ended_early(_: &[usize; GENERAL]) -> Option<EndedEarly> {
    None
}

/// Copies the general registers that a signal has interrupted; gives the stack pointer, and where the vector state lies and how
/// many bytes it has.
///
/// # Safety
/// `context` is the `ucontext` that a signal handler got.
pub unsafe fn interrupted(context: *const usize, general: &mut [usize; GENERAL]) -> (usize, *const u8, usize) {
    // Flags, link, the alternate stack (3 words), a mask of 128 bytes, all aligned to 16: the fault's address is word 22, then
    // x0 to x30, sp, pc, pstate; then 4096 bytes, aligned to 16, of records, the vector registers' first.
    const RECORDS: usize = 58;
    // SAFETY: by this function's own contract.
    unsafe {
        for (i, place) in general.iter_mut().enumerate() {
            *place = *context.add(23 + i);
        }
        (general[31], context.add(RECORDS).cast(), 4096)
    }
}
