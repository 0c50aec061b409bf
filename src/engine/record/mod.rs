//! What is recorded about each block. Runs inside malloc.

pub mod chunks;
pub mod depot;
pub mod frames;
pub mod index;
pub mod live_map;
