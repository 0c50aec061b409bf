//! When a scan is due. So far only the clock's rate: the stop and the snapshot are not written yet.

/// Allocations of a thread between two looks at the clock.
pub const TICKS: u32 = 1024;

/// Called on the allocation path every [`TICKS`] calls of a thread.
#[cold]
pub fn tick() {}
