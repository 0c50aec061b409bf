//! Where x86-64's registers are in what the kernel gives.
#![allow(unsafe_code)] // reads a signal frame

use leakscan_engine::sys;

/// General registers of a thread: `user_regs_struct`.
pub const GENERAL: usize = 27;
/// The number of the vector registers' set (NT_X86_XSTATE).
pub const VECTOR_SET: usize = 0x202;

/// Stack and thread pointer: rsp and fs_base.
pub fn pointers(general: &[usize; GENERAL], _: impl Fn(usize, &mut [usize]) -> Option<usize>) -> (usize, usize) {
    (general[19], general[21])
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
