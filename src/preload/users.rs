//! The program becomes another user for good: its report does, too. (By these functions of libc; by a system call of its own it does not.)
//! Who can be root again, as after seteuid, leaves the report root's, which each scan appends to it as (see [`report_file::open`]).
#![allow(unsafe_code)] // exported functions

use crate::{ledger, real, report_file, sandbox, settings};
use core::ffi::c_int;
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

/// Hands the report over, if the program is root for the last time. Gives whether it did.
fn hands_over(becomes: impl FnOnce([u32; 3]) -> [u32; 3]) -> bool {
    // (The child of a vfork, which mostly becomes another program, has its parent's memory.)
    let Some(_inside) = sandbox::enter() else { return false };
    if !ledger::exists() || settings::PID.load(Relaxed) != sys::getpid() {
        return false;
    }
    let now = sys::users();
    let users @ [_, effective, _] = becomes(now);
    now[1] == 0 && users.iter().all(|user| *user != 0 && *user != SAME) && hand_to(effective)
}

fn hand_to(user: u32) -> bool {
    let (Some(settings), Some(shared)) = (settings::get(), ledger::get()) else { return false };
    shared.ledger.inode.load(Relaxed) != 0 && report_file::hand_over(settings, shared.ledger, user)
}

fn or(user: u32, now: u32) -> u32 {
    if user == SAME { now } else { user }
}

/// setuid: the program's. Of root it makes all three.
#[unsafe(no_mangle)]
pub extern "C" fn setuid(user: u32) -> c_int {
    become_by(|_| [user; 3], || real::setuid(user))
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
