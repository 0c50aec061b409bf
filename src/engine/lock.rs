//! A mutex of four bytes that waits in the kernel and never allocates (parking_lot's own maps and allocates when a thread
//! parks, which inside malloc would be re-entry). Its guards are `lock_api`'s.
#![allow(unsafe_code)] // implements lock_api's unsafe trait

use crate::sync::AtomicU32;
use crate::sync::futex;
use core::sync::atomic::{Ordering::Acquire, Ordering::Relaxed, Ordering::Release};

const FREE: u32 = 0;
const HELD: u32 = 1;
const CONTENDED: u32 = 2;

/// The raw lock: mutex 2 of Drepper, "Futexes are tricky".
pub struct RawFutex(AtomicU32);

// SAFETY: only one thread at a time leaves `lock` or gets true from `try_lock` without a release in between, since both
// take the word from FREE by an atomic exchange with acquire ordering, and `unlock` gives it back with release ordering.
unsafe impl lock_api::RawMutex for RawFutex {
    #[allow(clippy::declare_interior_mutable_const)] // the trait's way to make a new one
    const INIT: Self = Self(AtomicU32::new(FREE));
    type GuardMarker = lock_api::GuardSend;

    fn lock(&self) {
        if self.try_lock() {
            return;
        }
        while self.0.swap(CONTENDED, Acquire) != FREE {
            futex::wait(&self.0, CONTENDED);
        }
    }

    fn try_lock(&self) -> bool {
        self.0.compare_exchange(FREE, HELD, Acquire, Relaxed).is_ok()
    }

    unsafe fn unlock(&self) {
        if self.0.swap(FREE, Release) == CONTENDED {
            futex::wake(&self.0);
        }
    }
}

/// A mutex for cold paths and table shards.
pub type Lock<T> = lock_api::Mutex<RawFutex, T>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn four_threads_count_without_loss() {
        let count = Lock::new(0u64);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..100_000).for_each(|_| *count.lock() += 1));
            }
        });
        assert_eq!(*count.lock(), 400_000);
        assert_eq!(size_of::<RawFutex>(), 4);
    }
}
