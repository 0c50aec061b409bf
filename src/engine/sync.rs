//! What threads share: the machine's atomics and futexes, or, to be modelled, some that let a scheduler choose before each step
//! which thread goes on (the crate `shuttle`). The layout is the same, so that both may lie in mapped memory.

#[cfg(not(feature = "model"))]
pub use core::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize};

#[cfg(not(feature = "model"))]
pub mod futex {
    use super::AtomicU32;
    use crate::sys;

    /// Waits while the word has this value, or for nothing.
    pub fn wait(word: &AtomicU32, value: u32) {
        sys::futex_wait(word, value, None);
    }

    /// Wakes one who waits.
    pub fn wake(word: &AtomicU32) {
        sys::futex_wake(word, 1);
    }
}

#[cfg(feature = "model")]
pub use model::{AtomicU32, AtomicU64, AtomicUsize, futex};

#[cfg(feature = "model")]
mod model {
    #![allow(unsafe_code)] // says that zero is a value
    use crate::arena::Zeroed;
    use core::sync::atomic::Ordering;

    macro_rules! atomics {
        ($($name:ident: $of:ty),+) => {$(
            #[repr(transparent)]
            pub struct $name(core::sync::atomic::$name);

            // SAFETY: an integer.
            unsafe impl Zeroed for $name {}

            #[allow(dead_code)] // of three types, each used for some of them
            impl $name {
                pub const fn new(value: $of) -> Self {
                    Self(core::sync::atomic::$name::new(value))
                }
                pub fn load(&self, order: Ordering) -> $of {
                    shuttle::thread::yield_now();
                    self.0.load(order)
                }
                pub fn store(&self, value: $of, order: Ordering) {
                    shuttle::thread::yield_now();
                    self.0.store(value, order);
                }
                pub fn swap(&self, value: $of, order: Ordering) -> $of {
                    shuttle::thread::yield_now();
                    self.0.swap(value, order)
                }
                pub fn compare_exchange(&self, old: $of, new: $of, set: Ordering, load: Ordering) -> Result<$of, $of> {
                    shuttle::thread::yield_now();
                    self.0.compare_exchange(old, new, set, load)
                }
                pub fn compare_exchange_weak(&self, old: $of, new: $of, set: Ordering, load: Ordering) -> Result<$of, $of> {
                    self.compare_exchange(old, new, set, load)
                }
                pub fn fetch_add(&self, value: $of, order: Ordering) -> $of {
                    shuttle::thread::yield_now();
                    self.0.fetch_add(value, order)
                }
                pub fn fetch_sub(&self, value: $of, order: Ordering) -> $of {
                    shuttle::thread::yield_now();
                    self.0.fetch_sub(value, order)
                }
                pub fn fetch_or(&self, value: $of, order: Ordering) -> $of {
                    shuttle::thread::yield_now();
                    self.0.fetch_or(value, order)
                }
                pub fn fetch_and(&self, value: $of, order: Ordering) -> $of {
                    shuttle::thread::yield_now();
                    self.0.fetch_and(value, order)
                }
                pub fn fetch_max(&self, value: $of, order: Ordering) -> $of {
                    shuttle::thread::yield_now();
                    self.0.fetch_max(value, order)
                }
                /// As the standard library's: a loop of a load and exchanges.
                pub fn fetch_update(
                    &self,
                    set: Ordering,
                    load: Ordering,
                    mut change: impl FnMut($of) -> Option<$of>,
                ) -> Result<$of, $of> {
                    let mut old = self.load(load);
                    while let Some(new) = change(old) {
                        match self.compare_exchange(old, new, set, load) {
                            Ok(_) => return Ok(old),
                            Err(now) => old = now,
                        }
                    }
                    Err(old)
                }
            }
        )+};
    }
    atomics! { AtomicU32: u32, AtomicU64: u64, AtomicUsize: usize }

    /// Of one model at a time: who waits is woken only by a wake, so that a lost one is a deadlock, which the scheduler tells.
    pub mod futex {
        use super::{AtomicU32, Ordering};
        use shuttle::sync::{Condvar, Mutex};
        use std::sync::Arc;

        shuttle::lazy_static! {
            static ref QUEUE: Arc<(Mutex<()>, Condvar)> = Arc::new((Mutex::new(()), Condvar::new()));
        }

        pub fn wait(word: &AtomicU32, value: u32) {
            let (lock, queue) = &**QUEUE;
            let held = lock.lock().expect("nobody panics with it");
            if word.0.load(Ordering::SeqCst) == value {
                drop(queue.wait(held).expect("as above"));
            }
        }

        /// Wakes all, since there may be several words: who was not meant sleeps again.
        pub fn wake(_: &AtomicU32) {
            let (lock, queue) = &**QUEUE;
            let _held = lock.lock().expect("as above");
            queue.notify_all();
        }
    }
}
