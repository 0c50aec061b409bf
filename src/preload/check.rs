//! Self-check for tests (`unwind_check=N`): every Nth stack is unwound again by libgcc and compared, frame for frame.
#![allow(unsafe_code)] // calls libgcc's unwinder by address

use crate::state::{TRACKER, UNWIND_CHECK, UNWINDER};
use core::ffi::{CStr, c_char, c_int, c_void};
use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use leakscan_engine::StackId;
use leakscan_engine::unwind::walk::Trace;

pub static COMPARED: AtomicU64 = AtomicU64::new(0);
pub static DIFFERENT: AtomicU64 = AtomicU64::new(0);
static CALLS: AtomicU64 = AtomicU64::new(0);
static BACKTRACE: AtomicUsize = AtomicUsize::new(0);
static GET_IP: AtomicUsize = AtomicUsize::new(0);

type Callback = extern "C" fn(context: *mut c_void, state: *mut State) -> c_int;

struct State {
    /// The caller's return address: frames before it are our own.
    first: usize,
    started: bool,
    ips: [(usize, bool); 72],
    len: usize,
}

unsafe extern "C" {
    fn dlopen(file: *const c_char, mode: c_int) -> *mut c_void;
    fn dlsym(handle: *mut c_void, name: *const c_char) -> *mut c_void;
}

/// Finds libgcc's unwinder. From the constructor, not from a hook.
pub fn init() {
    let find = |name: &CStr| {
        // SAFETY: both read the names; the library stays loaded.
        unsafe { dlsym(dlopen(c"libgcc_s.so.1".as_ptr(), 2), name.as_ptr()) as usize }
    };
    BACKTRACE.store(find(c"_Unwind_Backtrace"), Relaxed);
    GET_IP.store(find(c"_Unwind_GetIPInfo"), Relaxed);
}

/// Compares what the memo has given with a walk of the same stack: the frames of its id.
#[cold]
pub fn recalled(id: Option<StackId>, trace: &Trace) {
    if id.is_some_and(|id| TRACKER.depot.frames(id) != *trace.frames()) {
        DIFFERENT.fetch_add(1, Relaxed);
    }
}

/// Compares a trace with libgcc's, if it is its turn.
#[cold]
pub fn compare(first: usize, _sp: usize, trace: &Trace) {
    let (every, backtrace) = (UNWIND_CHECK.load(Relaxed), BACKTRACE.load(Relaxed));
    if backtrace == 0 || GET_IP.load(Relaxed) == 0 || !CALLS.fetch_add(1, Relaxed).is_multiple_of(every) {
        return;
    }
    let mut state = State { first, started: false, ips: [(0, false); 72], len: 0 };
    // SAFETY: `BACKTRACE` holds the address of _Unwind_Backtrace, whose prototype this is; `state` outlives the call.
    unsafe {
        let backtrace = core::mem::transmute::<usize, unsafe extern "C" fn(Callback, *mut State) -> c_int>(backtrace);
        backtrace(collect, &raw mut state);
    }
    let theirs = &state.ips[..state.len.min(trace.len)];
    let same = trace.frames().iter().zip(theirs).all(|(id, (ip, exact))| {
        UNWINDER.frames.get(*id).is_some_and(|node| node.address() == *ip && node.is_exact() == *exact)
    });
    // Where code has no table libgcc stops and we follow the frame pointer: longer is right then.
    let longer = trace.len > state.len && state.len > 0 && {
        let last = trace.ids[state.len - 1];
        UNWINDER.frames.get(last).is_some_and(|node| UNWINDER.is_without_table(node))
    };
    COMPARED.fetch_add(1, Relaxed);
    if !same || !(trace.len == state.len.min(crate::state::DEPTH.load(Relaxed) as usize) || longer) {
        DIFFERENT.fetch_add(1, Relaxed);
    }
}

extern "C" fn collect(context: *mut c_void, state: *mut State) -> c_int {
    // SAFETY: `compare` handed its state to _Unwind_Backtrace, which hands it on.
    let state = unsafe { &mut *state };
    let mut before = 0;
    // SAFETY: `GET_IP` holds the address of _Unwind_GetIPInfo, whose prototype this is.
    let ip = unsafe {
        let get =
            core::mem::transmute::<usize, unsafe extern "C" fn(*mut c_void, *mut c_int) -> usize>(GET_IP.load(Relaxed));
        get(context, &raw mut before)
    };
    state.started |= ip == state.first;
    if state.started && ip != 0 {
        if state.len == state.ips.len() {
            return 5; // _URC_END_OF_STACK: enough
        }
        state.ips[state.len] = (ip, before != 0);
        state.len += 1;
    }
    0
}
