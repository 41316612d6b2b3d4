pub fn run(_: &crate::Place) {}
