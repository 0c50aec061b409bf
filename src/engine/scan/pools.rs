//! Memory that a program manages by itself, and of which it is known what it holds to be free or dead. What lies there still points to
//! blocks that nothing keeps.

pub mod gcc;
pub mod perl;
