//! What is written for each CPU by itself: the exported names, the thread word, glibc's control block.

#[cfg_attr(target_arch = "x86_64", path = "x86_64.rs")]
#[cfg_attr(target_arch = "aarch64", path = "aarch64.rs")]
mod arch;

pub use arch::*;

/// Where glibc's `struct pthread` lies, and what in it.
pub struct ControlBlock {
    /// From the thread pointer, in bytes.
    pub start: isize,
    pub words: usize,
    /// Words that hold the thread pointer itself.
    pub selves: &'static [usize],
    /// The word that points to the table of thread-local storage.
    pub dtv: usize,
    /// Bytes among which the thread's id is.
    pub id_within: core::ops::Range<usize>,
    /// The same for three words that say where its stack is.
    pub stack_within: core::ops::Range<usize>,
}
