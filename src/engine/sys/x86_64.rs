//! System calls of x86-64 Linux.

use core::arch::{asm, naked_asm};

pub const O_DIRECTORY: usize = 0o200_000;
pub const O_NOFOLLOW: usize = 0o400_000;

/// Bits of an address in user space.
pub const USER_BITS: u32 = 47;

/// What matters of the kernel's `struct stat`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stat {
    pub device: u64,
    pub inode: u64,
    pub links: u64,
    pub mode: u32,
    pub uid: u32,
    pub size: u64,
}

impl Stat {
    /// From the structure itself, which is shorter than this.
    pub fn new(words: &[u64; 18]) -> Self {
        Self {
            device: words[0],
            inode: words[1],
            links: words[2],
            mode: words[3] as u32,
            uid: (words[3] >> 32) as u32,
            size: words[6],
        }
    }
}

/// Call numbers.
pub mod nr {
    pub const READ: usize = 0;
    pub const WRITE: usize = 1;
    pub const CLOSE: usize = 3;
    pub const FSTAT: usize = 5;
    pub const MMAP: usize = 9;
    pub const MPROTECT: usize = 10;
    pub const MUNMAP: usize = 11;
    pub const RT_SIGACTION: usize = 13;
    pub const RT_SIGPROCMASK: usize = 14;
    pub const PPOLL: usize = 271;
    pub const RT_SIGPENDING: usize = 127;
    pub const RT_SIGTIMEDWAIT: usize = 128;
    pub const RT_SIGRETURN: usize = 15;
    pub const PREAD64: usize = 17;
    pub const MINCORE: usize = 27;
    pub const NANOSLEEP: usize = 35;
    pub const SETITIMER: usize = 38;
    pub const GETPID: usize = 39;
    pub const CLONE: usize = 56;
    pub const EXIT: usize = 60;
    pub const EXECVE: usize = 59;
    pub const EXECVEAT: usize = 322;
    pub const CHROOT: usize = 161;
    pub const USERFAULTFD: usize = 323;
    pub const PIPE2: usize = 293;
    pub const IOCTL: usize = 16;
    pub const TEE: usize = 276;
    pub const FCNTL: usize = 72;
    pub const RECVFROM: usize = 45;
    pub const GETSOCKOPT: usize = 55;
    pub const WAIT4: usize = 61;
    pub const KILL: usize = 62;
    pub const FTRUNCATE: usize = 77;
    pub const GETPPID: usize = 110;
    pub const GETEUID: usize = 107;
    pub const GETRESUID: usize = 118;
    pub const SETRESUID: usize = 117;
    pub const FCHOWN: usize = 93;
    pub const PTRACE: usize = 101;
    pub const PRCTL: usize = 157;
    pub const SETRLIMIT: usize = 160;
    pub const GETTID: usize = 186;
    pub const FUTEX: usize = 202;
    pub const GETDENTS64: usize = 217;
    pub const CLOCK_GETTIME: usize = 228;
    pub const EXIT_GROUP: usize = 231;
    pub const TGKILL: usize = 234;
    pub const OPENAT: usize = 257;
    pub const NEWFSTATAT: usize = 262;
    pub const READLINKAT: usize = 267;
    pub const RENAMEAT: usize = 264;
    pub const FACCESSAT: usize = 269;
    pub const PRLIMIT64: usize = 302;
    pub const PROCESS_VM_READV: usize = 310;
    pub const UNSHARE: usize = 272;
    pub const MEMFD_CREATE: usize = 319;
    pub const GETCWD: usize = 79;
    pub const MADVISE: usize = 28;
    pub const ARCH_PRCTL: usize = 158;
    pub const SECCOMP: usize = 317;
    pub const KCMP: usize = 312;
    pub const STATX: usize = 332;
    pub const UNAME: usize = 63;
    pub const RESTART_SYSCALL: usize = 219;
    pub const CLOSE_RANGE: usize = 436;
}

/// The bare system call: the kernel's result, errors as negative numbers.
///
/// # Safety
/// See [`super::call`].
#[inline]
pub unsafe fn syscall(number: usize, args: [usize; 6]) -> isize {
    let result;
    // SAFETY: the kernel's calling convention: rcx and r11 are lost, memory may be written as the caller allows.
    unsafe {
        asm!("syscall", inlateout("rax") number as isize => result,
            in("rdi") args[0], in("rsi") args[1], in("rdx") args[2],
            in("r10") args[3], in("r8") args[4], in("r9") args[5],
            lateout("rcx") _, lateout("r11") _, options(nostack));
    }
    result
}

/// The base of the calling thread's segment register that libc leaves to programs (gs), which a clone's first thread has from its parent.
pub fn spare_base() -> usize {
    const ARCH_GET_GS: usize = 0x1004;
    let mut base = 0usize;
    // SAFETY: the kernel writes one word.
    unsafe { syscall(nr::ARCH_PRCTL, [ARCH_GET_GS, &raw mut base as usize, 0, 0, 0, 0]) };
    base
}

/// What a signal handler installed by a raw `rt_sigaction` returns to.
///
/// # Safety
/// Only as the restorer of a signal handler.
#[unsafe(naked)]
pub unsafe extern "C" fn restore_signal_frame() {
    naked_asm!("mov eax, 15", "syscall")
}
