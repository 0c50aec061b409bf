mod model;
mod symbolize;
mod sys;
fn main() {}
