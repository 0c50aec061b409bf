//! Reports for other programs.

pub mod folded;
pub mod json;
#[cfg(test)]
mod tests;
