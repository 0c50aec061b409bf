//! System calls of aarch64 Linux.

use core::arch::{asm, naked_asm};

pub const O_DIRECTORY: usize = 0o40_000;
pub const O_NOFOLLOW: usize = 0o100_000;

/// Bits of an address in user space.
pub const USER_BITS: u32 = 48;

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
            links: words[2] >> 32,
            mode: words[2] as u32,
            uid: words[3] as u32,
            size: words[6],
        }
    }
}

/// Call numbers.
pub mod nr {
    pub const READ: usize = 63;
    pub const WRITE: usize = 64;
    pub const CLOSE: usize = 57;
    pub const FSTAT: usize = 80;
    pub const MMAP: usize = 222;
    pub const MPROTECT: usize = 226;
    pub const MUNMAP: usize = 215;
    pub const RT_SIGACTION: usize = 134;
    pub const RT_SIGPROCMASK: usize = 135;
    pub const PPOLL: usize = 73;
    pub const RT_SIGPENDING: usize = 136;
    pub const RT_SIGTIMEDWAIT: usize = 137;
    pub const RT_SIGRETURN: usize = 139;
    pub const PREAD64: usize = 67;
    pub const MINCORE: usize = 232;
    pub const NANOSLEEP: usize = 101;
    pub const SETITIMER: usize = 103;
    pub const GETPID: usize = 172;
    pub const CLONE: usize = 220;
    pub const EXIT: usize = 93;
    pub const WAIT4: usize = 260;
    pub const KILL: usize = 129;
    pub const FTRUNCATE: usize = 46;
    pub const GETPPID: usize = 173;
    pub const GETEUID: usize = 175;
    pub const GETRESUID: usize = 148;
    pub const SETRESUID: usize = 147;
    pub const FCHOWN: usize = 55;
    pub const PTRACE: usize = 117;
    pub const PRCTL: usize = 167;
    pub const SETRLIMIT: usize = 164;
    pub const GETTID: usize = 178;
    pub const FUTEX: usize = 98;
    pub const GETDENTS64: usize = 61;
    pub const CLOCK_GETTIME: usize = 113;
    pub const EXIT_GROUP: usize = 94;
    pub const EXECVE: usize = 221;
    pub const EXECVEAT: usize = 281;
    pub const CHROOT: usize = 51;
    pub const USERFAULTFD: usize = 282;
    pub const PIPE2: usize = 59;
    pub const IOCTL: usize = 29;
    pub const TEE: usize = 77;
    pub const FCNTL: usize = 25;
    pub const RECVFROM: usize = 207;
    pub const GETSOCKOPT: usize = 209;
    pub const TGKILL: usize = 131;
    pub const OPENAT: usize = 56;
    pub const NEWFSTATAT: usize = 79;
    pub const READLINKAT: usize = 78;
    pub const RENAMEAT: usize = 38;
    pub const FACCESSAT: usize = 48;
    pub const PRLIMIT64: usize = 261;
    pub const PROCESS_VM_READV: usize = 270;
    pub const UNSHARE: usize = 97;
    pub const MEMFD_CREATE: usize = 279;
    pub const GETCWD: usize = 17;
    pub const MADVISE: usize = 233;
    pub const SECCOMP: usize = 277;
    pub const KCMP: usize = 272;
    pub const STATX: usize = 291;
    pub const UNAME: usize = 160;
    pub const RESTART_SYSCALL: usize = 128;
    pub const CLOSE_RANGE: usize = 436;
}

/// The bare system call: the kernel's result, errors as negative numbers.
///
/// # Safety
/// See [`super::call`].
#[inline]
pub unsafe fn syscall(number: usize, args: [usize; 6]) -> isize {
    let result;
    // SAFETY: the kernel's calling convention; memory may be written as the caller allows.
    unsafe {
        asm!("svc 0", in("x8") number,
            inlateout("x0") args[0] as isize => result, in("x1") args[1], in("x2") args[2],
            in("x3") args[3], in("x4") args[4], in("x5") args[5], options(nostack));
    }
    result
}

/// There is no such register.
pub fn spare_base() -> usize {
    0
}

/// What a signal handler installed by a raw `rt_sigaction` returns to.
///
/// # Safety
/// Only as the restorer of a signal handler.
#[unsafe(naked)]
pub unsafe extern "C" fn restore_signal_frame() {
    naked_asm!("mov x8, 139", "svc 0")
}
