//! The program becomes another user for good: its report does, too. (By these functions of libc; by a system call of its own it does not.)
//! Who can be root again, as after seteuid, leaves the report root's, which each scan appends to it as (see [`report_file::open`]).
#![allow(unsafe_code)] // exported functions, a helper

use crate::helper::{self, Kind};
use crate::{ledger, real, report_file, sandbox, settings, snapshot, trigger};
use core::ffi::{c_char, c_int};
use core::sync::atomic::Ordering::Relaxed;
use leakscan_engine::sys;

/// Of no user: it stays as it is.
const SAME: u32 = u32::MAX;

/// Calls the real function, after which the real, effective and saved users are to be these.
fn become_by(becomes: impl FnOnce([u32; 3]) -> [u32; 3], function: impl FnOnce() -> c_int) -> c_int {
    let handed = hands_over(becomes);
    let result = function();
    if handed && result != 0 {
        hand_to(0);
    }
    result
}

/// Hands the report over, if the program can be root for the last time. Gives whether it did.
fn hands_over(becomes: impl FnOnce([u32; 3]) -> [u32; 3]) -> bool {
    // (The child of a vfork, which mostly becomes another program, has its parent's memory.)
    let Some(_inside) = sandbox::enter() else { return false };
    if !ledger::exists() || settings::PID.load(Relaxed) != sys::getpid() {
        return false;
    }
    let now = sys::users();
    let users @ [_, effective, _] = becomes(now);
    now.contains(&0) && users.iter().all(|user| *user != 0 && *user != SAME) && hand_to(effective)
}

/// As root, which this thread may not be for the moment.
fn hand_to(user: u32) -> bool {
    let begun = || ledger::get().is_some_and(|shared| shared.ledger.inode.load(Relaxed) != 0);
    begun() && if sys::geteuid() == 0 { give(user) } else { trigger::alone(|| by_helper(user)) == Some(true) }
}

fn give(user: u32) -> bool {
    let (Some(settings), Some(shared)) = (settings::get(), ledger::get()) else { return false };
    report_file::hand_over(settings, shared.ledger, user)
}

/// chroot: the program's.
#[unsafe(no_mangle)]
pub extern "C" fn chroot(path: *const c_char) -> c_int {
    trigger::before_chroot(path as usize);
    real::chroot(path)
}

struct Handing {
    user: u32,
    done: bool,
}

/// By a helper, which can be root without anybody's notice. (Not where it would be the init of a pid namespace.)
fn by_helper(user: u32) -> bool {
    if snapshot::children_are_elsewhere() != Ok(false) {
        return false;
    }
    let mut handing = Handing { user, done: false };
    // SAFETY: `hand` uses no thread-local state and ends itself; what it is to do is here until then.
    let started = unsafe { helper::start(hand, &raw mut handing as usize, Kind::Task) }.is_ok_and(helper::wait);
    started && handing.done
}

extern "C" fn hand(handing: usize) -> ! {
    // SAFETY: as `by_helper` says.
    let handing = unsafe { &mut *(handing as *mut Handing) };
    // (It goes by memory who may look into a process.)
    let dumpable = sys::is_dumpable();
    handing.done = sys::act_as(0) && give(handing.user);
    if dumpable {
        sys::set_dumpable();
    }
    helper::ends()
}

fn or(user: u32, now: u32) -> u32 {
    if user == SAME { now } else { user }
}

/// setuid: the program's. Of root it makes all three, of others the effective one.
#[unsafe(no_mangle)]
pub extern "C" fn setuid(user: u32) -> c_int {
    let becomes = |[real, now, saved]: [u32; 3]| if now == 0 { [user; 3] } else { [real, user, saved] };
    become_by(becomes, || real::setuid(user))
}

/// seteuid: the same.
#[unsafe(no_mangle)]
pub extern "C" fn seteuid(user: u32) -> c_int {
    become_by(|[real, now, saved]| [real, or(user, now), saved], || real::seteuid(user))
}

/// setreuid: the same. The saved user becomes the effective one where the real one is named, or is not that.
#[unsafe(no_mangle)]
pub extern "C" fn setreuid(real_user: u32, user: u32) -> c_int {
    let becomes = |[real, now, saved]: [u32; 3]| {
        let effective = or(user, now);
        let is_saved = real_user != SAME || user != SAME && user != real;
        [or(real_user, real), effective, if is_saved { effective } else { saved }]
    };
    become_by(becomes, || real::setreuid(real_user, user))
}

/// setresuid: the same.
#[unsafe(no_mangle)]
pub extern "C" fn setresuid(real_user: u32, user: u32, saved_user: u32) -> c_int {
    let becomes = |[real, now, saved]: [u32; 3]| [or(real_user, real), or(user, now), or(saved_user, saved)];
    become_by(becomes, || real::setresuid(real_user, user, saved_user))
}
