//! What is recorded about each block. Runs inside malloc.

pub mod live_map;
