//! What is fixed when the process starts: its options, who it is, who started it. Set by the constructor, renewed by fork.
#![allow(unsafe_code)] // copies the option text into memory of our own

use crate::state::{PYMALLOC, TRACKER};
use core::ffi::{CStr, c_char};
use core::sync::atomic::{
    AtomicBool, AtomicPtr, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering::Acquire, Ordering::Relaxed,
    Ordering::Release,
};
use leakscan_engine::arena;
use leakscan_engine::sys::{self, nr};
use leakscan_options::Options;

/// Set once, by the constructor. (once_cell's cells would do, but cargo builds it with std as soon as any member of the
/// workspace asks for that.)
static SETTINGS: AtomicPtr<Settings> = AtomicPtr::new(core::ptr::null_mut());
pub static PID: AtomicU32 = AtomicU32::new(0);
pub static PPID: AtomicU32 = AtomicU32::new(0);
/// Seconds since 1970.
pub static STARTED: AtomicU64 = AtomicU64::new(0);
/// This process was started by a watched one: forked from it, or run by it.
pub static FORKED: AtomicBool = AtomicBool::new(false);

/// Everything is copied, since a program may overwrite its environment (as setproctitle does).
pub struct Settings {
    pub options: Options<'static>,
    /// As in the environment, for the report.
    pub text: &'static str,
    /// `log_path`, absolute: a program may change its directory.
    pub log_path: &'static str,
    /// `LEAKSCAN_RUN`, or `-`.
    pub run: &'static str,
}

/// The settings; `None` before the constructor, and then nothing but tracking goes on.
pub fn get() -> Option<&'static Settings> {
    // SAFETY: `init` stores a pointer to a structure that is never changed or unmapped.
    unsafe { SETTINGS.load(Acquire).as_ref() }
}

/// Reads the environment. To be called once, by the constructor.
///
/// # Safety
/// `environment` is a list of C strings that ends in a null pointer.
pub unsafe fn init(environment: *const *const c_char) -> Option<&'static Settings> {
    // SAFETY: by this function's own contract.
    let (text, run) = unsafe { (find(environment, b"LEAKSCAN_OPTIONS="), find(environment, b"LEAKSCAN_RUN=")) };
    let text = text.and_then(keep).unwrap_or("");
    let options = leakscan_options::parse(text, |_| {});
    // SAFETY: by this function's own contract.
    let python =
        unsafe { find(environment, b"PYTHONMALLOC=") }.is_some_and(|value| value.to_bytes().starts_with(b"malloc"));
    PYMALLOC.store(!python && crate::real::is_interposed() && crate::real::has_pymalloc(), Relaxed);
    if !options.quiet {
        leakscan_options::parse(text, |fault| {
            let cause: &[u8] =
                if fault.unknown_name { b": there is no such option" } else { b": not a value that this option takes" };
            sys::Stderr.line(&[b"leakscan: LEAKSCAN_OPTIONS: `", fault.part.as_bytes(), b"`", cause]);
        });
    }
    let log_path = absolute(options.log_path).unwrap_or(options.log_path);
    let settings =
        Settings { options, text, log_path, run: run.and_then(keep).filter(|run| !run.is_empty()).unwrap_or("-") };
    let place = arena::map_for_good(size_of::<Settings>())?.start as *mut Settings;
    // SAFETY: the mapping is new, large enough, aligned, and never unmapped.
    unsafe { place.write(settings) };
    SETTINGS.store(place, Release);
    FORKED.store(false, Relaxed);
    ENVIRONMENT.store(environment.expose_provenance(), Relaxed);
    renew();
    get()
}

/// Notes who we are, at the start and in the child of a fork.
pub fn renew() {
    PID.store(sys::getpid(), Relaxed);
    PPID.store(sys::getppid(), Relaxed);
    STARTED.store(sys::clock_ns(sys::CLOCK_REALTIME) / 1_000_000_000, Relaxed);
    ROOT.store(UNKNOWN, Relaxed);
}

/// What [`is_root`] has found: it is asked for more than once at the end.
static ROOT: AtomicU8 = AtomicU8::new(UNKNOWN);
const UNKNOWN: u8 = 2;

/// Whether this is a process that somebody asked to watch, rather than one that a watched process started. Such a process
/// leaves a report even if there is nothing in it.
pub fn is_root(settings: &Settings) -> bool {
    if FORKED.load(Relaxed) {
        return false;
    }
    if ROOT.load(Relaxed) == UNKNOWN {
        ROOT.store(was_asked_for(settings).into(), Relaxed);
    }
    ROOT.load(Relaxed) == 1
}

fn was_asked_for(settings: &Settings) -> bool {
    let parent = PPID.load(Relaxed);
    match settings.run.split_once('-') {
        // `leakscan run` puts its own pid first.
        Some((pid, _)) if !pid.is_empty() => pid.parse() == Ok(parent),
        _ => !parent_is_watched(parent),
    }
}

/// By hand, with LD_PRELOAD in one command's environment, the shell that started it has no such variable.
fn parent_is_watched(parent: u32) -> bool {
    let mut path = [0u8; 32];
    let Some(buffer) = arena::zeroed::<u8>(64 << 10) else { return false };
    let Ok(environment) = sys::read_file(sys::proc_path(&mut path, parent, b"environ"), buffer) else { return false };
    environment
        .split(|&byte| byte == 0)
        .filter_map(|entry| entry.strip_prefix(b"LD_PRELOAD="))
        .any(|value| value.windows(11).any(|window| window == b"libleakscan"))
}

/// The environment that the program began with.
static ENVIRONMENT: AtomicUsize = AtomicUsize::new(0);

/// The same as [`leave_environment`] while the program runs, in the environment that it began with, and that which it has now, where the
/// entry lies on the initial stack or is a block (setenv's).
pub fn leave_environment_late() {
    const NAME: &[u8] = b"LD_PRELOAD=";
    /// Of arguments and environment, which lie on top of the stack behind their lists.
    const MOST: usize = 8 << 20;
    unsafe extern "C" {
        static environ: *const *const c_char;
    }
    let first = ENVIRONMENT.load(Relaxed);
    // SAFETY: libc's own list of the environment, which this thread may look at as by getenv.
    for list in [first as *const *const c_char, unsafe { environ }] {
        // SAFETY: the lists stay where the kernel, or libc, has put them, and end in a null pointer, whatever the program has done to them.
        let value = if list.is_null() { None } else { unsafe { find(list, NAME) } };
        let can_be_changed = |value: &&CStr| {
            let start = value.as_ptr().addr();
            (first..first + MOST).contains(&start) || TRACKER.live.get(start - NAME.len()).is_some()
        };
        if value.filter(can_be_changed).is_some() {
            // SAFETY: as above; the value lies in memory that can be written.
            unsafe { leave_environment(list) };
        }
    }
}

/// Takes us out of `LD_PRELOAD` for the programs that this one starts; other libraries in it stay.
///
/// # Safety
/// As for [`init`]; no other thread reads the environment yet.
pub unsafe fn leave_environment(environment: *const *const c_char) {
    // SAFETY: by this function's own contract.
    let Some(value) = (unsafe { find(environment, b"LD_PRELOAD=") }) else { return };
    let start = value.as_ptr().cast_mut().cast::<u8>();
    // SAFETY: the value's bytes lie on the initial stack, which is writable; it only gets shorter.
    let bytes = unsafe { core::slice::from_raw_parts_mut(start, value.count_bytes()) };
    let (mut from, mut to) = (0, 0);
    while from < bytes.len() {
        let len = bytes[from..].iter().position(|byte| b": ".contains(byte)).unwrap_or(bytes.len() - from);
        let ours = bytes[from..from + len].windows(11).any(|window| window == b"libleakscan");
        if !ours {
            if to > 0 {
                bytes[to] = b':';
                to += 1;
            }
            bytes.copy_within(from..from + len, to);
            to += len;
        }
        from += len + 1;
    }
    bytes[to..].fill(0);
}

fn keep(text: &CStr) -> Option<&'static str> {
    let bytes = text.to_bytes();
    let copy = arena::zeroed::<u8>(bytes.len())?;
    copy.copy_from_slice(bytes);
    core::str::from_utf8(copy).ok()
}

/// A relative pattern behind the working directory of now. `None` if it is absolute.
fn absolute(pattern: &'static str) -> Option<&'static str> {
    const PATH: usize = 4096;
    if pattern.starts_with('/') {
        return None;
    }
    let folder = arena::zeroed::<u8>(PATH)?;
    // SAFETY: the kernel writes at most PATH bytes, the zero at the end included.
    let len = unsafe { sys::call(nr::GETCWD, [folder.as_mut_ptr() as usize, PATH, 0, 0, 0, 0]) }.ok()? - 1;
    let path = arena::zeroed::<u8>(2 * len + 1 + pattern.len())?;
    let mut used = 0;
    let mut push = |byte| {
        path[used] = byte;
        used += 1;
    };
    for &byte in &folder[..len] {
        push(byte);
        if byte == b'%' {
            push(byte);
        }
    }
    push(b'/');
    pattern.bytes().for_each(&mut push);
    core::str::from_utf8(&path[..used]).ok()
}

unsafe fn find<'a>(mut environment: *const *const c_char, name: &[u8]) -> Option<&'a CStr> {
    loop {
        // SAFETY: the caller promises a list that ends in null, of strings that end in zero.
        let entry = unsafe { CStr::from_ptr(environment.as_ref()?.as_ref()?) };
        if entry.to_bytes().starts_with(name) {
            // SAFETY: the name has been found to lie before the string's end.
            return Some(unsafe { CStr::from_ptr(entry.as_ptr().add(name.len())) });
        }
        // SAFETY: the entry was not the null at the end.
        environment = unsafe { environment.add(1) };
    }
}
