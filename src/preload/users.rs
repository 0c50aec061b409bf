//! The program becomes another user: its report does, too. (By these functions of libc; by a system call of its own it does not.)
#![allow(unsafe_code)] // exported functions

use crate::{ledger, real, report_file, sandbox, settings};
use core::ffi::c_int;
use core::sync::atomic::Ordering::Relaxed;
use leakscan_engine::sys;

/// Of no user: it stays as it is.
const SAME: u32 = u32::MAX;

fn becoming(user: u32) {
    // (The child of a vfork, which mostly becomes another program, has its parent's memory.)
    if user != SAME
        && let Some(_inside) = sandbox::enter()
        && ledger::exists()
        && sys::geteuid() == 0
        && settings::PID.load(Relaxed) == sys::getpid()
        && let (Some(settings), Some(shared)) = (settings::get(), ledger::get())
        && shared.ledger.inode.load(Relaxed) != 0
    {
        report_file::hand_over(settings, shared.ledger, user);
    }
}

/// setuid: the program's.
#[unsafe(no_mangle)]
pub extern "C" fn setuid(user: u32) -> c_int {
    becoming(user);
    real::setuid(user)
}

/// seteuid: the same.
#[unsafe(no_mangle)]
pub extern "C" fn seteuid(user: u32) -> c_int {
    becoming(user);
    real::seteuid(user)
}

/// setreuid: the same.
#[unsafe(no_mangle)]
pub extern "C" fn setreuid(real_user: u32, user: u32) -> c_int {
    becoming(user);
    real::setreuid(real_user, user)
}

/// setresuid: the same.
#[unsafe(no_mangle)]
pub extern "C" fn setresuid(real_user: u32, user: u32, saved: u32) -> c_int {
    becoming(user);
    real::setresuid(real_user, user, saved)
}
