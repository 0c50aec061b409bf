//! The report format `/tmp/leakscan.$pid`, its writer and its reader. A leaf: no_std, no allocation, no dependencies.
//!
//! The snapshot child writes reports with [`write::Writer`]; the command line reads them with [`read::Report`].
//!
//! # Format 1
//!
//! Text, one record a line, fields separated by one space, made to be read in a pager. A field value has no space and no
//! control character: such bytes, the backslash and bytes that are not UTF-8 text are written `\xHH`.
//!
//! A file starts with a header of four lines:
//!
//! ```text
//! leakscan report 1
//! process pid=4242 ppid=1 start=1732580000 version=0.1.0 run=4240-1f3a
//! command exe=/usr/bin/redis-server args=redis-server\x20*:6379
//! options set=interval=60:sample=0
//! ```
//!
//! `start` is in seconds since 1970; `run` is the name of the `leakscan run` that the process belongs to (what it put into
//! `LEAKSCAN_RUN`), `-` where it was started otherwise. Then each scan appends one block, first line `scan`, last line `end`:
//!
//! ```text
//! scan 1 trigger=interval time=1732580060
//! module 0 start=7f10c0000000 end=7f10c0200000 bias=7f10c0000000 build_id=4b9c... path=/usr/lib/libc.so.6
//! stack 17 0+8f2a1 0+9c4b0 -+7f10d0001234 0+3c050!
//! stats pause_us=812 stop_us=90 scan_ms=14 via=ptrace threads=4 ...
//! leak kind=direct status=confirmed stack=17 blocks=2 bytes=2674 exact=1 error_blocks=0 error_bytes=0 indirect_blocks=0 indirect_bytes=0
//! check confirmed_freed=0 suspected_freed=0
//! misuse what=mismatch made_by=new freed_by=free made=17 freed=18 blocks=1
//! unseen what=thread count=1 why=tid\x204243\x20did\x20not\x20stop
//! end 1 bytes=512 sum=8c3f5e0d11a2b3c4
//! ```
//!
//! * `module`: numbers are valid inside their own block. `bias` is what to subtract from an address to get the address in
//!   the ELF file. `build_id` is `-` where the module has none.
//! * `stack`: defined once per file, in the first block that names it; ids are nonzero. Frames go from the caller of the
//!   allocation outwards, `module+offset` in hexadecimal, the offset being the return address less the bias; `-` instead
//!   of a module is an absolute address in no module (JIT code). A trailing `!` marks an exact address (the instruction
//!   that a signal interrupted) rather than a return address.
//! * `leak`: one fold of blocks alike in kind, status and stack; `stack=0` means that no stack was recorded. `exact=0`
//!   marks an estimate from samples.
//! * `check`: blocks of earlier scans that the program freed afterwards, that is, which were no leaks.
//! * `misuse`: blocks freed the wrong way, since the program started: by another family of functions than made them
//!   (`mismatch`), once more (`double-free`), or at an address that is no block's (`wild-free`), with the stacks of both, 0
//!   where one is not known.
//! * `unseen`: what the scan could not see; part of the verdict.
//! * `end`: `bytes` is the length of the block up to this line, `sum` its 64-bit FNV-1a hash in hexadecimal. A block
//!   without a matching `end` is cut short and is to be ignored.
//!
//! A reader refuses a file whose version is larger than its own, and ignores fields that it does not know.
#![cfg_attr(not(test), no_std)]

pub mod read;
pub mod write;

/// The version that this crate writes, and the largest that it reads.
pub const FORMAT: u32 = 1;

/// What made a block a leak.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// Nothing points to it, or only its own cycle does and it is the cycle's leader.
    Direct,
    /// Only leaked blocks point to it.
    Indirect,
    /// Reached from a root, but only through pointers into its middle.
    Possible,
}

/// How sure the scan is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Status {
    /// Unreachable in two scans, or at exit.
    Confirmed,
    /// Unreachable for the first time in a scan of the running program.
    Suspected,
}

/// Why a scan ran.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trigger {
    Interval,
    Signal,
    Api,
    Exit,
    /// The program becomes another one.
    Exec,
    /// The program is about to put a filter on its system calls under which no scan is possible.
    Seccomp,
    /// The program is about to change its root directory, where there may be no /proc, and no folder for the report.
    Chroot,
    /// A block was freed twice: the program may be about to end.
    Misuse,
}

impl Trigger {
    /// Nothing of the program comes after it.
    pub const fn is_end(self) -> bool {
        matches!(self, Trigger::Exit | Trigger::Exec)
    }
    /// No scan comes after it.
    pub const fn is_last(self) -> bool {
        self.is_end() || matches!(self, Trigger::Seccomp)
    }
}

/// How a block was freed the wrong way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wrong {
    /// By another family of functions than made it.
    Mismatch,
    DoubleFree,
    /// There is no block at the address.
    WildFree,
}

macro_rules! words {
    ($ty:ty { $($variant:ident = $word:literal),+ $(,)? }) => {
        impl $ty {
            /// The word that stands for it in reports.
            pub const fn word(self) -> &'static str {
                match self { $(<$ty>::$variant => $word),+ }
            }
            /// The value that a word of a report stands for.
            pub fn from_word(word: &str) -> Option<Self> {
                match word { $($word => Some(<$ty>::$variant),)+ _ => None }
            }
        }
    };
}
words!(Kind { Direct = "direct", Indirect = "indirect", Possible = "possible" });
words!(Status { Confirmed = "confirmed", Suspected = "suspected" });
words!(Trigger {
    Interval = "interval",
    Signal = "signal",
    Api = "api",
    Exit = "exit",
    Exec = "exec",
    Seccomp = "seccomp",
    Chroot = "chroot",
    Misuse = "misuse",
});
words!(Wrong { Mismatch = "mismatch", DoubleFree = "double-free", WildFree = "wild-free" });

/// The process that a report is about. Text fields are raw bytes; `args` is the command line, arguments joined by a space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Process<'a> {
    pub pid: u32,
    pub ppid: u32,
    /// Seconds since 1970.
    pub start: u64,
    pub version: &'a [u8],
    /// Which `leakscan run` it belongs to; `-` for none.
    pub run: &'a [u8],
    pub exe: &'a [u8],
    pub args: &'a [u8],
    pub options: &'a [u8],
}

/// A loaded file, `start..end` in the address space of the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Module<'a> {
    pub id: u32,
    pub start: u64,
    pub end: u64,
    pub bias: u64,
    /// Raw bytes, empty where there is none.
    pub build_id: &'a [u8],
    pub path: &'a [u8],
}

/// One frame of a stack. `module` counts inside the block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame {
    pub module: Option<u32>,
    /// Relative to the module's bias; absolute without a module.
    pub offset: u64,
    /// The interrupted instruction itself rather than the one after a call.
    pub exact: bool,
}

macro_rules! numbers {
    ($(#[$doc:meta])* $name:ident { $($(#[$fdoc:meta])* $field:ident),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct $name { $($(#[$fdoc])* pub $field: u64),+ }
        impl $name {
            /// Field names in the order of [`Self::values`].
            pub const NAMES: &'static [&'static str] = &[$(stringify!($field)),+];
            pub fn values(&self) -> [u64; Self::NAMES.len()] { [$(self.$field),+] }
            /// Sets a field by its name; a name that is not known is ignored.
            pub fn set(&mut self, name: &str, value: u64) {
                match name { $(stringify!($field) => self.$field = value,)+ _ => {} }
            }
        }
    };
}
numbers! {
    /// What one scan measured.
    Stats {
        /// Microseconds in which the program's threads stood still.
        pause_us,
        /// Of these, the microseconds until every thread had stopped.
        stop_us,
        /// Milliseconds from the snapshot to the last line of the block.
        scan_ms,
        /// CPU milliseconds of the snapshot child.
        cpu_ms,
        threads,
        threads_stopped,
        live_blocks,
        live_bytes,
        reachable_blocks,
        reachable_bytes,
        /// Reached only through pointers into their middle (part of the reachable ones).
        possible_blocks,
        possible_bytes,
        direct_blocks,
        direct_bytes,
        indirect_blocks,
        indirect_bytes,
        /// Of the leaked blocks, those that are confirmed.
        confirmed_blocks,
        confirmed_bytes,
        /// Bytes of roots that were read.
        root_bytes,
        /// Distinct stacks known.
        stacks,
        /// Memory that leakscan itself has mapped in the program.
        own_bytes,
    }
}
numbers! {
    /// The permanent self-check: reported blocks that the program freed later.
    Check { confirmed_freed, suspected_freed }
}

/// Blocks alike in kind, status and stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leak {
    pub kind: Kind,
    pub status: Status,
    /// 0: no stack.
    pub stack: u32,
    pub blocks: u64,
    pub bytes: u64,
    /// False for an estimate from samples.
    pub exact: bool,
    /// Standard errors of an estimate.
    pub error_blocks: u64,
    pub error_bytes: u64,
    /// Blocks and bytes that only these blocks keep.
    pub indirect_blocks: u64,
    pub indirect_bytes: u64,
}

/// Blocks that were freed the same wrong way. The families are words for people (`new[]`, `free`), `-` where not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Misuse<'a> {
    pub what: Wrong,
    pub made_by: &'a [u8],
    pub freed_by: &'a [u8],
    /// Stacks; 0: not known.
    pub made: u32,
    pub freed: u32,
    pub blocks: u64,
}

/// FNV-1a, 64 bits (Fowler, Noll, Vo): guards a block against cuts and stray writes, not against malice.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sum(u64);

impl Sum {
    pub(crate) const fn new() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
    pub(crate) fn add(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
        }
    }
    pub(crate) const fn value(self) -> u64 {
        self.0
    }
}
