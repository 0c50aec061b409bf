//! One scan of a snapshot. Runs in the snapshot child, with no lock, no allocation but the arena's, and nobody else running.
//!
//! The door reads the maps and the threads, then: [`blocks::Blocks::build`], [`roots`], [`mark::Marker`],
//! [`classify::leaked`], [`fold`].

pub mod blocks;
pub mod classify;
pub mod disguise;
pub mod fold;
pub mod maps;
pub mod mark;
pub mod pools;
pub mod resident;
pub mod roots;
mod sieve;
pub mod smaps;

#[cfg(test)]
mod tests;
